"""The metrics of the inference service, one set a process; labels are bounded by the models and their versions.

Versions come and go for years, so the series of one that is not loaded any more are forgotten; not at once, since
what an aborted candidate did is looked at after it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelyard_common.bodies import HeldBytes
from modelyard_common.metrics import Gathered, QuickCounter, QuickHistogram, Snapshot
from prometheus_client import Counter, Gauge, Histogram

from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.domain.ports import Run
from modelyard_inference.domain.requests import Role
from modelyard_inference.usecases.residents import Residents
from modelyard_inference.usecases.serving import Serving

__all__ = [
    "EVENTS_DROPPED",
    "EVENTS_REFUSED",
    "EVENTS_SENT",
    "READER_LOST",
    "SHADOW_WAITING",
    "SPOOL_DAMAGED",
    "PrometheusObserver",
    "ResidentCounts",
    "show_bodies",
    "show_lanes",
    "show_residents",
    "show_routing_age",
    "show_serving",
    "show_spool",
]

REQUESTS = QuickCounter(
    "modelyard_inference_requests_total", "Requests, by who answered and how", ["model", "version", "role", "outcome"]
)
ROWS = QuickCounter("modelyard_inference_rows_total", "Rows answered", ["model", "version", "role"])
SECONDS = QuickHistogram(
    "modelyard_inference_predict_seconds",
    "Time to check the rows, to wait for a turn and to run the model",
    ["model", "version", "role"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
STAGE_SECONDS = QuickHistogram(
    "modelyard_inference_stage_seconds",
    "Time of a request by stage: parse its bytes, queue for a turn, predict in the model, encode the answer",
    ["model", "stage"],
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
STAGES = ("queue", "predict", "parse", "encode")
BATCH_REQUESTS = QuickHistogram(
    "modelyard_inference_batch_requests",
    "Requests that ran together as one batch",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_ROWS = QuickHistogram(
    "modelyard_inference_batch_rows",
    "Rows that ran together as one batch",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384),
)
FALLBACKS = Counter(
    "modelyard_inference_candidate_fallbacks_total",
    "Requests that the champion answered because the candidate did not",
    ["model", "version", "reason"],
)
SHADOW_DROPPED = Counter("modelyard_inference_shadow_dropped_rows_total", "Shadow copies that found no room", ["model"])
SHADOW_WAITING = Gauge("modelyard_inference_shadow_waiting_rows", "Shadow copies in the queue")
SPOOL_BYTES = Gauge("modelyard_inference_spool_size_bytes", "Bytes of the spool on disk")
SPOOL_PENDING = Gauge("modelyard_inference_spool_pending_bytes", "Bytes of the spool that drift does not have yet")
SPOOL_LIMIT = Gauge("modelyard_inference_spool_limit_bytes", "Bytes that the spool may take")
SPOOL_DAMAGED = Counter("modelyard_inference_spool_damaged_bytes_total", "Bytes of the spool that could not be read")
EVENTS_DROPPED = Counter("modelyard_inference_events_dropped_total", "Events that the spool did not take", ["reason"])
EVENTS_SENT = Counter("modelyard_inference_events_sent_total", "Events that drift has acknowledged")
EVENTS_REFUSED = Counter(
    "modelyard_inference_events_refused_total", "Events that drift refused; they are kept in the dead-letter file"
)
READER_LOST = Counter(
    "modelyard_inference_spool_lost_bytes_total", "Bytes of the spool that a reader lost to make room", ["reader"]
)
SINK_SENT = Counter("modelyard_inference_sink_sent_total", "CloudEvents that the sink has taken")
SINK_REFUSED = Counter(
    "modelyard_inference_sink_refused_total", "CloudEvents that the sink refused; they are kept in the dead-letter file"
)
SINK_PENDING = Gauge("modelyard_inference_sink_pending_bytes", "Bytes of the spool that the sink does not have yet")
ROUTING_AGE = Gauge(
    "modelyard_inference_routing_age_seconds", "Since the routing was known to be the registry's; -1: never yet"
)
SERVED = Snapshot(
    "modelyard_inference_served_number", "Number of the version that answers here; 0: none", ["model", "role"]
)
REVISION = Snapshot("modelyard_inference_routing_revision", "Revision of the routing in force here", ["model"])
TRIPPED = Snapshot(
    "modelyard_inference_candidate_tripped_state",
    "1 while the candidate gets no requests here, because it failed too often in a row",
    ["model"],
)
NOT_READY = Gauge("modelyard_inference_models_waiting_count", "Models that are not served here yet")
RESIDENT_BYTES = Gauge(
    "modelyard_inference_models_in_memory_bytes", "What loaded models take, as estimated; 0 where there is no budget"
)
RESIDENT_LIMIT = Gauge("modelyard_inference_models_in_memory_limit_bytes", "The budget of loaded models; 0: none")
EVICTED = Counter("modelyard_inference_models_evicted_total", "Models that made room for others")
RETURNED = Histogram(
    "modelyard_inference_models_returned_seconds",
    "Time to load a model again because somebody asked",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BODIES_BYTES = Gauge(
    "modelyard_inference_bodies_held_bytes",
    "Bytes of the bodies of requests that are held until they are answered, without the first 32 KiB of each",
)
BODIES_LIMIT = Gauge("modelyard_inference_bodies_limit_bytes", "Bytes that the bodies of all requests may take")
LANE_WAITING = Snapshot("modelyard_inference_lane_waiting_requests", "Requests that wait for a thread", ["lane"])
LANE_LOST = Snapshot("modelyard_inference_lane_lost_threads", "Threads in which a model hangs", ["lane"])

for _reader in ("drift", "sink"):
    READER_LOST.labels(_reader)
for _reason in ("full", "disk", "form"):
    # To Prometheus a series that begins at 1 has not risen.
    EVENTS_DROPPED.labels(_reason)

_FORGET_AFTER_S = 3600.0
"""Longer than any rule looks back at a version's counts; versions that come faster than one a minute would show."""


_Taken = tuple[str, float, float, int]
"""Model, seconds to read a request and to write its answer, and how many requests."""


class PrometheusObserver:
    """Counts in Prometheus. Children are kept, because finding them by labels costs as much as a small model."""

    def __init__(self) -> None:
        self._children: dict[tuple[str, int, Role], tuple[QuickCounter, QuickCounter, QuickHistogram]] = {}
        self._models: dict[str, tuple[QuickHistogram, ...]] = {}
        self._counted: set[tuple[str, int]] = set()
        self._gone_since: dict[tuple[str, int], float] = {}
        self._runs = Gathered(self._count_runs)
        self._taken = Gathered(self._count_taken)

    def answered(self, model: str, version: int, role: Role, rows: int, took_s: float) -> None:
        """Count an answer."""
        requests, answered, seconds = self._of_version(model, version, role)
        requests.inc()
        answered.inc(rows)
        seconds.observe(took_s)

    def _of_version(self, model: str, version: int, role: Role) -> tuple[QuickCounter, QuickCounter, QuickHistogram]:
        children = self._children.get((model, version, role))
        if children is None:
            number = str(version)
            children = (
                REQUESTS.labels(model, number, role, "answered"),
                ROWS.labels(model, number, role),
                SECONDS.labels(model, number, role),
            )
            self._children[model, version, role] = children
            self._counted.add((model, version))
        return children

    def ran(self, run: Run) -> None:
        """Count the answers of a batch."""
        self._runs.add(run)

    def _count_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            for role, (rows, took_s) in run.answers.items():
                requests, answered, seconds = self._of_version(run.model, run.version, role)
                requests.inc(len(rows))
                answered.inc(sum(rows))
                seconds.observe_all(took_s)
            batch_requests, batch_rows, queue, predict, _, _ = self._of_model(run.model)
            batch_requests.observe(run.requests)
            batch_rows.observe(run.rows)
            queue.observe_all(run.queued_s)
            predict.observe_all([run.predict_s] * len(run.queued_s))

    def took(self, model: str, parse_s: float, encode_s: float, times: int = 1) -> None:
        """Count how long it took to read a request and to write its answer, of so many."""
        self._taken.add((model, parse_s, encode_s, times))

    def _count_taken(self, taken: Sequence[_Taken]) -> None:
        for model, parse_s, encode_s, times in taken:
            children = self._of_model(model)
            children[4].observe_all((parse_s,) * times)
            children[5].observe_all((encode_s,) * times)

    def _of_model(self, model: str) -> tuple[QuickHistogram, ...]:
        children = self._models.get(model)
        if children is None:
            stages = (STAGE_SECONDS.labels(model, stage) for stage in STAGES)
            children = self._models[model] = (BATCH_REQUESTS.labels(model), BATCH_ROWS.labels(model), *stages)
        return children

    def failed(self, model: str, version: int, role: Role, reason: str) -> None:
        """Count a version's failure."""
        self._counted.add((model, version))
        REQUESTS.labels(model, str(version), role, reason).inc()
        if role == "candidate":
            FALLBACKS.labels(model, str(version), reason).inc()

    def shadow_dropped(self, model: str, rows: int) -> None:
        """Count shadow copies that found no room."""
        SHADOW_DROPPED.labels(model).inc(rows)

    def forget_unloaded(self, loaded: Iterable[tuple[str, int]], now_s: float) -> None:
        """Forget the versions that have not been loaded for an hour.

        Args:
            loaded: (model, number) of those that are.
            now_s: monotonic seconds.
        """
        self._runs.settle()
        self._taken.settle()
        gone = self._counted - set(loaded)
        self._gone_since = {version: self._gone_since.get(version, now_s) for version in gone}
        for (model, number), since_s in self._gone_since.items():
            if now_s - since_s >= _FORGET_AFTER_S:
                self._forget(model, number)

    def _forget(self, model: str, number: int) -> None:
        for key in [key for key in self._children if key[:2] == (model, number)]:
            del self._children[key]
        for metric in (REQUESTS, ROWS, SECONDS, FALLBACKS):
            metric.remove_by_labels({"model": model, "version": str(number)})
        self._counted.discard((model, number))
        if not any(name == model for name, _ in self._counted):
            self._models.pop(model, None)
            for metric in (STAGE_SECONDS, BATCH_REQUESTS, BATCH_ROWS):
                metric.remove_by_labels({"model": model})


def show_serving(servings: Sequence[Serving], waiting: Mapping[str, str]) -> None:
    """Show what is in force here."""
    served: dict[tuple[str, ...], float] = {}
    for serving in servings:
        served[serving.routing.model, "champion"] = serving.champion.version.number
        served[serving.routing.model, "candidate"] = serving.candidate.version.number if serving.candidate else 0
    SERVED.show(served)
    REVISION.show({(serving.routing.model,): serving.routing.revision for serving in servings})
    TRIPPED.show({(serving.routing.model,): bool(serving.guard and serving.guard.tripped) for serving in servings})
    NOT_READY.set(len(waiting))


def show_routing_age(age_s: float | None) -> None:
    """Show how old the routing is; None: it was never known."""
    ROUTING_AGE.set(-1 if age_s is None else age_s)


def show_spool(size_bytes: int, pending_bytes: int, limit_bytes: int) -> None:
    """Show how full the spool is."""
    SPOOL_BYTES.set(size_bytes)
    SPOOL_PENDING.set(pending_bytes)
    SPOOL_LIMIT.set(limit_bytes)


def show_bodies(held: HeldBytes) -> None:
    """Show what the bodies of requests take."""
    BODIES_BYTES.set(held.count)
    BODIES_LIMIT.set(held.most)


def show_lanes(*lanes: ThreadLane) -> None:
    """Show how busy the threads are."""
    LANE_WAITING.show({(lane.name,): lane.waiting for lane in lanes})
    LANE_LOST.show({(lane.name,): lane.lost for lane in lanes})


def show_residents(residents: Residents, limit_bytes: int) -> None:
    """Show what loaded models take of their budget."""
    RESIDENT_BYTES.set(residents.size_bytes)
    RESIDENT_LIMIT.set(limit_bytes)


class ResidentCounts:
    """Counts models that leave memory and come back; the log says which."""

    def evicted(self, model: str) -> None:
        """Count a model that made room."""
        del model
        EVICTED.inc()

    def returned(self, model: str, took_s: float) -> None:
        """Count a model that was loaded because somebody asked."""
        del model
        RETURNED.observe(took_s)
