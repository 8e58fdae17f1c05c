"""The metrics of the inference service, one set a process; labels are bounded by the models and their versions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from modelyard_inference.domain.requests import Role

__all__ = [
    "EVENTS_DROPPED",
    "EVENTS_REFUSED",
    "EVENTS_SENT",
    "ROUTING_AGE",
    "SHADOW_WAITING",
    "SPOOL_BYTES",
    "SPOOL_DAMAGED",
    "SPOOL_PENDING",
    "PrometheusObserver",
]

REQUESTS = Counter(
    "modelyard_inference_requests_total", "Requests, by who answered and how", ["model", "version", "role", "outcome"]
)
ROWS = Counter("modelyard_inference_rows_total", "Rows answered", ["model", "version", "role"])
SECONDS = Histogram(
    "modelyard_inference_predict_seconds",
    "Time to check the rows and to run the model",
    ["model", "version", "role"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
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
SPOOL_DAMAGED = Counter("modelyard_inference_spool_damaged_bytes_total", "Bytes of the spool that could not be read")
EVENTS_DROPPED = Counter("modelyard_inference_events_dropped_total", "Events that the spool did not take", ["reason"])
EVENTS_SENT = Counter("modelyard_inference_events_sent_total", "Events that drift has acknowledged")
EVENTS_REFUSED = Counter(
    "modelyard_inference_events_refused_total", "Events that drift refused; they are kept in the dead-letter file"
)
ROUTING_AGE = Gauge(
    "modelyard_inference_routing_age_seconds", "Since the routing was known to be the registry's; -1: never yet"
)


class PrometheusObserver:
    """Counts in Prometheus. Children are kept, because finding them by labels costs as much as a small model."""

    def __init__(self) -> None:
        self._children: dict[tuple[str, int, Role], tuple[Counter, Counter, Histogram]] = {}

    def answered(self, model: str, version: int, role: Role, rows: int, took_s: float) -> None:
        """Count an answer."""
        children = self._children.get((model, version, role))
        if children is None:
            number = str(version)
            children = (
                REQUESTS.labels(model, number, role, "answered"),
                ROWS.labels(model, number, role),
                SECONDS.labels(model, number, role),
            )
            self._children[model, version, role] = children
        children[0].inc()
        children[1].inc(rows)
        children[2].observe(took_s)

    def failed(self, model: str, version: int, role: Role, reason: str) -> None:
        """Count a version's failure."""
        REQUESTS.labels(model, str(version), role, reason).inc()
        if role == "candidate":
            FALLBACKS.labels(model, str(version), reason).inc()

    def shadow_dropped(self, model: str, rows: int) -> None:
        """Count shadow copies that found no room."""
        SHADOW_DROPPED.labels(model).inc(rows)
