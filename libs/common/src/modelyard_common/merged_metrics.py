"""One exposition of several processes that are one server.

What is counted is summed, over those that have ended too: it never goes backwards. What is true now is summed, or the
largest or smallest of it is shown, as each gauge's rule says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from modelyard_common import shared_metrics
from modelyard_common.shared_metrics import SharedNumber

__all__ = ["OVER_PROCESSES", "Counts", "Family", "Rule", "add_counts", "counts_of", "own_families", "render_merged"]

Rule = Literal["sum", "max", "min"]
Labels = tuple[tuple[str, str], ...]

OVER_PROCESSES: Mapping[str, Rule] = {
    "modelyard_http_requests_in_flight": "sum",
    "modelyard_process_cpu_limit_cores": "max",
    "modelyard_process_memory_limit_bytes": "max",
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_open_fds": "sum",
    "process_max_fds": "min",
    "process_start_time_seconds": "min",
    "python_info": "max",
}
"""How a gauge that every service has is seen over several processes."""

_TOGETHER: Mapping[Rule, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of one process, as plain values that travel."""

    name: str
    documentation: str
    kind: str
    samples: Sequence[tuple[str, Labels, float]]


@dataclass(slots=True)
class Counts:
    """What was counted: numbers by sample and labels, of each metric."""

    kind: str
    documentation: str
    numbers: dict[tuple[str, Labels], float] = field(default_factory=dict)


def own_families() -> list[Family]:
    """Return what this process shows beside what it counts in its area."""
    area = shared_metrics.shared
    counted = area.metrics if area is not None else set()
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [
                (sample.name, tuple(sample.labels.items()), float(sample.value))
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ],
        )
        for metric in REGISTRY.collect()
        # A histogram that is not in the area is of a process that holds none, and counts nothing of the server's.
        if metric.name not in counted and metric.type not in ("histogram", "summary")
    ]


def counts_of(area: Iterable[SharedNumber], families: Iterable[Family]) -> dict[str, Counts]:
    """Return what one process has counted, in its area and elsewhere."""
    found: dict[str, Counts] = {}
    for one in area:
        counts = found.setdefault(one.metric, Counts(one.kind, one.documentation))
        counts.numbers[one.sample, one.labels] = one.number
    for family in families:
        if family.kind == "counter":
            counts = found.setdefault(family.name, Counts("counter", family.documentation))
            counts.numbers |= {(name, labels): number for name, labels, number in family.samples}
    return found


def add_counts(into: dict[str, Counts], more: Mapping[str, Counts]) -> None:
    """Add what another process has counted."""
    for name, counts in more.items():
        total = into.setdefault(name, Counts(counts.kind, counts.documentation))
        for key, number in counts.numbers.items():
            total.numbers[key] = total.numbers.get(key, 0.0) + number


def render_merged(
    counts: Mapping[str, Counts], families: Iterable[Sequence[Family]], rules: Mapping[str, Rule]
) -> tuple[bytes, str]:
    """Return the exposition and its content type.

    Args:
        counts: the sums over all processes.
        families: of each process that lives.
        rules: of the gauges beside ``OVER_PROCESSES``; one that neither names shows its largest value.
    """
    metrics = [_counted(name, each) for name, each in counts.items()]
    metrics += _gauges(families, {**OVER_PROCESSES, **rules})
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(sorted(metrics, key=lambda metric: metric.name)))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Shown(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _counted(name: str, counts: Counts) -> Metric:
    metric = Metric(name, counts.documentation, counts.kind)
    if counts.kind == "histogram":
        _add_histograms(metric, counts)
    else:
        for (sample, labels), number in sorted(counts.numbers.items()):
            metric.add_sample(sample, dict(labels), number)
    return metric


def _add_histograms(metric: Metric, counts: Counts) -> None:
    """Add the buckets of each series from the smallest up: a process counts into one, a scrape shows all below too."""
    buckets: dict[Labels, list[tuple[float, Labels, float]]] = {}
    for (sample, labels), number in counts.numbers.items():
        if sample.endswith("_bucket"):
            series = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(series, []).append((float(dict(labels)["le"]), labels, number))
    for series, found in sorted(buckets.items()):
        below = 0.0
        for _, labels, number in sorted(found):
            below += number
            metric.add_sample(f"{metric.name}_bucket", dict(labels), below)
        metric.add_sample(f"{metric.name}_count", dict(series), below)
        metric.add_sample(f"{metric.name}_sum", dict(series), counts.numbers.get((f"{metric.name}_sum", series), 0.0))


def _gauges(families: Iterable[Sequence[Family]], rules: Mapping[str, Rule]) -> list[Metric]:
    seen: dict[str, tuple[Family, dict[tuple[str, Labels], list[float]]]] = {}
    for process in families:
        for family in process:
            if family.kind == "counter":
                continue
            _, numbers = seen.setdefault(family.name, (family, {}))
            for name, labels, number in family.samples:
                numbers.setdefault((name, labels), []).append(number)
    metrics = []
    for name, (family, numbers) in seen.items():
        metric = Metric(name, family.documentation, family.kind)
        for (sample, labels), found in numbers.items():
            metric.add_sample(sample, dict(labels), _TOGETHER[rules.get(name, "max")](found))
        metrics.append(metric)
    return metrics
