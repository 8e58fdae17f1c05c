"""Metrics that every service has, with bounded labels: routes are templates, never paths that people sent.

``Snapshot`` is for what is true now and is read from a table: all of its series are replaced at once, so that what
has left the world leaves the scrape too, and no scrape sees half of a change.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakMethod

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from modelyard_common import shared_metrics
from modelyard_common.capacity import CPU_LIMIT, MEMORY_LIMIT

__all__ = [
    "CPU_LIMIT",
    "GRPC_REQUESTS",
    "GRPC_SECONDS",
    "IN_FLIGHT",
    "LATENCY_BUCKETS_S",
    "MEMORY_LIMIT",
    "REQUESTS",
    "REQUEST_SECONDS",
    "Gathered",
    "QuickCounter",
    "QuickHistogram",
    "Snapshot",
    "render",
]

_MOST_KEPT = 512
"""Observations that a histogram keeps before it counts them: some ten microseconds' work at once, 16 KiB."""


_MOST_GATHERED = 128
"""Events, each of which several metrics are told of."""
T = TypeVar("T")


def _count_kept(kept: list[T], counting: threading.Lock, count: Callable[[Sequence[T]], None]) -> None:
    """Count what is kept, and keep it no more. What another thread appends meanwhile stays for the next time."""
    with counting:
        some = kept[:]
        del kept[: len(some)]
        if some:
            count(some)


class Gathered(Generic[T]):
    """What has happened and is not counted yet: that is done when somebody looks at a quick metric, or much has
    gathered.

    What is counted between other work finds little of what it needs in the processor's caches, and takes longer than
    what is counted behind its like.

    Args:
        count: counts events; a bound method, in whose object this is kept.
    """

    def __init__(self, count: Callable[[Sequence[T]], None]) -> None:
        self._count = count
        self._events: list[T] = []
        self._counting = threading.Lock()
        # Where counts outlive their process, what is kept would go with it.
        self._most = _MOST_GATHERED if shared_metrics.shared is None else 1
        _SETTLES.append(WeakMethod(self.settle))

    def add(self, event: T) -> None:
        """Count an event by and by."""
        events = self._events
        events.append(event)
        if len(events) >= self._most:
            self.settle()

    def settle(self) -> None:
        """Count all of them."""
        _count_kept(self._events, self._counting, self._count)


_SETTLES: list[WeakMethod[Callable[[], None]]] = []


def _settle_all() -> None:
    for reference in tuple(_SETTLES):
        settle = reference()
        if settle is None:
            _SETTLES.remove(reference)
        else:
            settle()


class _Kept:
    """Counts later what a metric was told: when somebody looks, or much has gathered."""

    def _keep_nothing(self) -> None:
        self._kept: list[float] = []
        self._counting = threading.Lock()

    def _count(self) -> None:
        """Count what is kept."""
        _count_kept(self._kept, self._counting, self._add)

    def _add(self, amounts: Sequence[float]) -> None:
        raise NotImplementedError


class QuickHistogram(_Kept, Histogram):
    """A histogram for what happens ten thousand times a second: it keeps what it is told, and counts it later.

    The library walks through the buckets and takes two locks at each observation. Here an observation is an append;
    buckets are counted when somebody looks, or when a few thousand have gathered. What is scraped is the same.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._keep_nothing()

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Observe an amount; one with an exemplar is counted at once."""
        if exemplar is not None:
            super().observe(amount, exemplar)
            return
        kept = self._kept
        kept.append(amount)
        if len(kept) >= _MOST_KEPT:
            self._count()

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe several amounts."""
        self._kept.extend(amounts)
        if len(self._kept) >= _MOST_KEPT:
            self._count()

    def _add(self, amounts: Sequence[float]) -> None:
        # In order, so that it is looked for each bucket's end and not for each amount's bucket.
        ordered = sorted(amounts)
        counted = 0
        for place, most in enumerate(self._upper_bounds):
            if (below := bisect_right(ordered, most, counted)) > counted:
                self._buckets[place].inc(below - counted)
                counted = below
        self._sum.inc(sum(amounts))

    def collect(self) -> Iterable[Any]:
        """Return what is scraped."""
        _settle_all()
        return super().collect()

    def _child_samples(self) -> Iterable[Any]:
        self._count()
        return super()._child_samples()


class QuickCounter(_Kept, Counter):
    """A counter for the same: an increment is an append, and is counted when somebody looks.

    Not where counts outlive their process (``shared_metrics``): there each is counted at once, since what is kept
    would go with it.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._keep_nothing()
        self._at_once = shared_metrics.shared is not None

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count; with an exemplar at once."""
        if self._at_once or exemplar is not None:
            super().inc(amount, exemplar)
            return
        kept = self._kept
        kept.append(amount)
        if len(kept) >= _MOST_KEPT:
            self._count()

    def _add(self, amounts: Sequence[float]) -> None:
        super().inc(sum(amounts))

    def collect(self) -> Iterable[Any]:
        """Return what is scraped."""
        _settle_all()
        return super().collect()

    def _child_samples(self) -> Iterable[Any]:
        self._count()
        return super()._child_samples()


LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = QuickCounter(
    "modelyard_http_requests_total", "HTTP requests answered", ["service", "method", "route", "status"]
)
REQUEST_SECONDS = QuickHistogram(
    "modelyard_http_request_seconds", "Time to answer", ["service", "method", "route"], buckets=LATENCY_BUCKETS_S
)
GRPC_REQUESTS = Counter("modelyard_grpc_requests_total", "gRPC calls answered", ["service", "method", "code"])
GRPC_SECONDS = QuickHistogram(
    "modelyard_grpc_request_seconds", "Time to answer", ["service", "method"], buckets=LATENCY_BUCKETS_S
)
IN_FLIGHT = Gauge("modelyard_http_requests_in_flight", "Requests being answered", ["service"])


class Snapshot(Collector):
    """A metric whose series are shown as a whole.

    Args:
        name: as it is scraped; a counter's ends in ``_total``.
        documentation: what it means.
        labels: the names of its labels.
        kind: ``counter`` for a number that only grows, also over restarts, since it is counted in a database.
        registry: another one, for tests.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        kind: Literal["gauge", "counter"] = "gauge",
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self.kind = kind
        self._rows: Mapping[tuple[str, ...], float] = {}
        registry.register(self)

    def show(self, rows: Mapping[tuple[str, ...], float]) -> None:
        """Replace all series: values of the labels, in their order, to a number."""
        wrong = next((values for values in rows if len(values) != len(self.labels)), None)
        if wrong is not None:
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(wrong)} of them")
        self._rows = dict(rows)

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return the metric without series: the registry asks for names."""
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return the metric with its series."""
        family = self._family()
        for values, number in self._rows.items():
            family.add_metric(values, number)
        return [family]

    def _family(self) -> GaugeMetricFamily | CounterMetricFamily:
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return kind(self.name, self.documentation, labels=self.labels)


def render() -> tuple[bytes, str]:
    """Return the exposition of all metrics of this process, and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
