"""The metrics of drift; labels are bounded by the models and by their schemas."""

from __future__ import annotations

from modelyard_contracts.drift_v1 import DriftStatus, LabelReceipt, WindowView
from modelyard_contracts.events_v1 import EventReceipt
from prometheus_client import Counter, Gauge

__all__ = ["count_events", "count_labels", "show_status", "show_window"]

EVENTS = Counter("modelyard_drift_events_total", "Prediction events by what became of them", ["outcome"])
LABELS = Counter("modelyard_drift_labels_total", "Labels by what became of them", ["model", "outcome"])
REQUESTS = Gauge("modelyard_drift_requests_rows", "Answered rows in the log, ever", ["model"])
BACKLOG = Gauge("modelyard_drift_backlog_rows", "Rows that windows have not seen yet", ["model"])
WATERMARK = Gauge("modelyard_drift_watermark_seconds", "Newest event time, Unix", ["model"])
SEVERITY = Gauge("modelyard_drift_severity_level", "0 none, 1 low, 2 high, 3 critical; -1 unknown", ["model"])
EPISODES = Gauge("modelyard_drift_open_episodes_count", "Episodes that are open", ["model"])
PENDING = Gauge("modelyard_drift_pending_commands_count", "Retrain commands that training has not taken", ["model"])
WAITING = Gauge("modelyard_drift_labels_waiting_rows", "Labels whose prediction is not here", ["model"])
MISSING = Gauge("modelyard_drift_labels_missing_rows", "Rows whose label is late", ["model"])
WINDOWS = Gauge("modelyard_drift_windows_count", "Windows that were closed", ["model"])
PSI = Gauge("modelyard_drift_feature_psi_ratio", "Effect size in the last scored window", ["model", "feature"])
PERFORMANCE = Gauge(
    "modelyard_drift_performance_ratio", "Metric over the labelled rows of the last window", ["model", "metric"]
)
_LEVELS = {"unknown": -1, "none": 0, "low": 1, "high": 2, "critical": 3}


def count_events(receipt: EventReceipt) -> None:
    """Count a batch of events."""
    EVENTS.labels(outcome="accepted").inc(receipt.accepted)
    EVENTS.labels(outcome="duplicate").inc(receipt.duplicates)
    EVENTS.labels(outcome="refused").inc(receipt.refused)


def count_labels(model: str, receipt: LabelReceipt) -> None:
    """Count a batch of labels."""
    LABELS.labels(model=model, outcome="accepted").inc(receipt.accepted)
    LABELS.labels(model=model, outcome="unchanged").inc(receipt.unchanged)


def show_status(status: DriftStatus) -> None:
    """Show where a model stands."""
    model = status.model
    REQUESTS.labels(model=model).set(status.requests)
    BACKLOG.labels(model=model).set(max(0, status.ingest_seq - status.processed_seq))
    SEVERITY.labels(model=model).set(_LEVELS[status.severity])
    EPISODES.labels(model=model).set(len(status.open_episodes))
    PENDING.labels(model=model).set(status.pending_commands)
    WAITING.labels(model=model).set(status.labels_waiting)
    MISSING.labels(model=model).set(status.labels_missing)
    if status.watermark is not None:
        WATERMARK.labels(model=model).set(status.watermark.timestamp())
    if status.last_window is not None:
        WINDOWS.labels(model=model).set(status.last_window.index + 1)
        show_window(status.last_window)


def show_window(window: WindowView) -> None:
    """Show the scores of a window."""
    if window.state == "scored":
        for feature in (*window.features, *([window.prediction] if window.prediction else [])):
            PSI.labels(model=window.model, feature=feature.feature).set(feature.psi)
    for entry in window.performance:
        PERFORMANCE.labels(model=window.model, metric=entry.metric).set(entry.value)
