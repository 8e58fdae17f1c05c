"""The metrics of drift; labels are bounded by the models and by their schemas.

Where models stand is read from the log every few seconds and shown as a whole: a model that is deleted, and a feature
that its schema has no more, leave the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelyard_common.metrics import Snapshot
from modelyard_contracts.drift_v1 import DriftStatus, FeatureDrift, LabelReceipt, PerformanceView, WindowView
from modelyard_contracts.events_v1 import EventReceipt
from prometheus_client import Counter

from modelyard_drift.usecases.ports import Policy

__all__ = ["Standing", "count_events", "count_labels", "show"]

EVENTS = Counter("modelyard_drift_events_total", "Prediction events by what became of them", ["outcome"])
LABELS = Counter("modelyard_drift_labels_total", "Labels by what became of them", ["model", "outcome"])
REQUESTS = Snapshot("modelyard_drift_requests_rows", "Answered rows in the log, ever", ["model"])
LABELLED = Snapshot("modelyard_drift_labelled_rows", "Labels that found their prediction, ever", ["model"])
BACKLOG = Snapshot("modelyard_drift_backlog_rows", "Rows that windows have not seen yet", ["model"])
WATERMARK = Snapshot("modelyard_drift_watermark_seconds", "Newest event time, Unix", ["model"])
SEVERITY = Snapshot(
    "modelyard_drift_severity_level",
    "Of the champion's last scored window: 0 none, 1 low, 2 high, 3 critical; -1: it has none",
    ["model"],
)
OPEN_EPISODES = Snapshot("modelyard_drift_open_episodes_count", "Episodes that are open", ["model", "severity"])
EPISODES = Snapshot("modelyard_drift_episodes_total", "Episodes that were opened, ever", ["model"], kind="counter")
DECISIONS = Snapshot(
    "modelyard_drift_decisions_total", "Decisions about episodes, ever", ["model", "decision"], kind="counter"
)
PENDING = Snapshot("modelyard_drift_pending_commands_count", "Retrain commands that training has not taken", ["model"])
WAITING = Snapshot("modelyard_drift_labels_waiting_rows", "Labels whose prediction is not here", ["model"])
MISSING = Snapshot("modelyard_drift_labels_missing_rows", "Rows whose label is late", ["model"])
WINDOWS = Snapshot("modelyard_drift_windows_count", "Windows that were closed", ["model"])
PSI = Snapshot(
    "modelyard_drift_feature_psi_ratio",
    "Effect size (PSI) in the champion's last scored window; of the answers too, as the feature `prediction`",
    ["model", "feature"],
)
PERFORMANCE = Snapshot(
    "modelyard_drift_performance_ratio", "Metric over the newest window that has labels", ["model", "metric"]
)
BOUND = Snapshot(
    "modelyard_drift_performance_bound_ratio", "Where the manifest calls the metric critical", ["model", "metric"]
)
_LEVELS = {"unknown": -1, "none": 0, "low": 1, "high": 2, "critical": 3}
_SEVERITIES = ("low", "high", "critical")
_DECISIONS = ("command", "cooldown", "budget", "below_severity", "quality", "no_policy", "paused", "off")
_PLAIN: tuple[tuple[Snapshot, Callable[[DriftStatus], float]], ...] = (
    (REQUESTS, lambda status: status.requests),
    (LABELLED, lambda status: status.labels),
    (BACKLOG, lambda status: max(0, status.ingest_seq - status.processed_seq)),
    (PENDING, lambda status: status.pending_commands),
    (WAITING, lambda status: status.labels_waiting),
    (MISSING, lambda status: status.labels_missing),
    (WINDOWS, lambda status: status.last_window.index + 1 if status.last_window is not None else 0),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model stands.

    Attributes:
        windows: the last closed ones, newest first.
        episodes: how many were opened, ever.
        decisions: how often each was taken, ever.
    """

    policy: Policy
    status: DriftStatus
    windows: Sequence[WindowView]
    episodes: int
    decisions: Mapping[str, int]

    @property
    def model(self) -> str:
        """Its name."""
        return self.status.model

    @property
    def scored(self) -> WindowView | None:
        """The last window that was scored against the present champion: another's says nothing of this one."""
        mine = (window for window in self.windows if window.reference == self.status.reference)
        return next((window for window in mine if window.state == "scored"), None)

    @property
    def scores(self) -> Sequence[FeatureDrift]:
        """Those of that window."""
        scored = self.scored
        if scored is None:
            return ()
        return (*scored.features, *([scored.prediction] if scored.prediction is not None else []))

    @property
    def performance(self) -> Sequence[PerformanceView]:
        """What the reference achieved in the newest window whose labels have come."""
        judged = next((window for window in self.windows if window.performance), None)
        if judged is None:
            return ()
        return [entry for entry in judged.performance if entry.version == judged.reference] or judged.performance[:1]


def count_events(receipt: EventReceipt) -> None:
    """Count a batch of events."""
    EVENTS.labels(outcome="accepted").inc(receipt.accepted)
    EVENTS.labels(outcome="duplicate").inc(receipt.duplicates)
    EVENTS.labels(outcome="refused").inc(receipt.refused)


def count_labels(model: str, receipt: LabelReceipt) -> None:
    """Count a batch of labels."""
    LABELS.labels(model=model, outcome="accepted").inc(receipt.accepted)
    LABELS.labels(model=model, outcome="unchanged").inc(receipt.unchanged)


def show(standings: Iterable[Standing]) -> None:
    """Show where all models stand."""
    found = list(standings)
    for snapshot, value in _PLAIN:
        snapshot.show({(one.model,): value(one.status) for one in found})
    SEVERITY.show({(one.model,): _LEVELS[one.scored.severity if one.scored else "unknown"] for one in found})
    WATERMARK.show({(one.model,): one.status.watermark.timestamp() for one in found if one.status.watermark})
    EPISODES.show({(one.model,): one.episodes for one in found})
    OPEN_EPISODES.show({(one.model, severity): _open(one, severity) for one in found for severity in _SEVERITIES})
    DECISIONS.show({(one.model, kind): one.decisions.get(kind, 0) for one in found for kind in _DECISIONS})
    PSI.show({(one.model, score.feature): score.psi for one in found for score in one.scores})
    PERFORMANCE.show({(one.model, entry.metric): entry.value for one in found for entry in one.performance})
    BOUND.show({(one.model, metric): bound for one in found for metric, bound in _bounds(one.policy)})


def _open(standing: Standing, severity: str) -> int:
    return sum(1 for episode in standing.status.open_episodes if episode.severity == severity)


def _bounds(policy: Policy) -> Iterable[tuple[str, float]]:
    for trigger in policy.spec.train.when:
        if (rule := trigger.performance) is not None:
            bound = rule.below if rule.below is not None else rule.above
            if bound is not None:
                yield rule.metric, bound
