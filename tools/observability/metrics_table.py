"""The table of all metrics, read from the registries of the services as they are imported, never written by hand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelyard_common.metrics import Snapshot
from prometheus_client import PROCESS_COLLECTOR, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tools.observability.labels import LABELS, bound

__all__ = ["SERVICES", "Metric", "metrics_of", "page"]

SERVICES = ("inference", "registry", "training", "drift", "operator")
UNITS = {
    "seconds": "seconds",
    "bytes": "bytes",
    "rows": "rows",
    "percent": "percent",
    "ratio": "number",
    "total": "count",
    "count": "count",
    "number": "number",
    "level": "level",
    "state": "0 or 1",
    "revision": "revision",
    "runs": "runs",
    "requests": "requests",
    "threads": "threads",
    "flight": "requests",
    "cores": "cores",
    "fds": "file descriptors",
    "pending": "models",
    "watchers": "watches",
    "leader": "0 or 1",
}
"""The last word of a name to the unit of its value."""


_COMMON = "modelyard_common.app", "modelyard_common.serving"
"""What every service makes of an application, and what serves it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is scraped."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def unit(self) -> str:
        """The unit of its value; of a counter, of what it counts."""
        words = self.name.removesuffix("_total").rsplit("_", 1)
        return UNITS.get(words[-1]) or UNITS[self.name.rsplit("_", 1)[-1]]


def metrics_of(service: str) -> list[Metric]:
    """Return the metrics that only this service has, or with ``common`` those that all have."""
    for name in _COMMON if service == "common" else (f"modelyard_{service}.wiring",):
        importlib.import_module(name)
    shared = _found("modelyard_common.")
    found = shared if service == "common" else _found(f"modelyard_{service}.")
    ours = [_metric(one) for key, one in found.items() if service == "common" or key not in shared]
    return sorted(ours, key=lambda metric: metric.name)


def process_metrics() -> list[Metric]:
    """Return what the client library says of every process."""
    families = sorted(PROCESS_COLLECTOR.collect(), key=lambda family: family.name)
    return [
        Metric(
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            (),
            family.documentation.rstrip("."),
        )
        for family in families
    ]


def _found(prefix: str) -> dict[int, Any]:
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith(prefix)]
    return {
        id(value): value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase | Snapshot)
    }


def _metric(one: MetricWrapperBase | Snapshot) -> Metric:
    if isinstance(one, Snapshot):
        return Metric(one.name, one.kind, one.labels, one.documentation)
    [family] = one.describe()
    kind = "counter" if isinstance(one, Counter) else "histogram" if isinstance(one, Histogram) else "gauge"
    # The library shows the names of labels only together with values.
    return Metric(family.name + ("_total" if kind == "counter" else ""), kind, one._labelnames, family.documentation)


def page() -> str:
    """Return the page."""
    parts = [
        "# Metrics\n",
        "Written by `python -m tools.observability.write` from the services' own registries.\n",
        "Every service answers `GET /metrics`, without a token. A histogram is scraped as `_bucket`, `_sum` and"
        " `_count`. Prometheus adds `namespace`, `job` (`modelyard-` and the service)"
        " and `instance`.\n",
        "What callers send adds no series: labels are bounded by what was applied and by closed sets of words, and with"
        " them the series of a metric in one process; those of a histogram once more for each of its buckets."
        " `tests/observability` sends strangers to a live platform and holds every label to this table.\n",
        "| label | values | at most |",
        "|---|---|---|",
        *(f"| `{name}` | {one.what} | {one.most or 'as many'} |" for name, one in LABELS.items()),
        "",
        _section("Every service", metrics_of("common")),
        *(_section(service.capitalize(), metrics_of(service)) for service in SERVICES),
        _section("Every process", process_metrics()),
    ]
    return "\n".join(parts)


def _section(title: str, metrics: Iterable[Metric]) -> str:
    lines = [f"## {title}\n", "| metric | type | labels | series | unit | meaning |", "|---|---|---|---|---|---|"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {bound(one.labels)} | {one.unit} | {one.meaning} |")
    return "\n".join(lines) + "\n"
