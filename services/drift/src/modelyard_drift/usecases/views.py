"""Domain values as the contract shows them."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard_contracts.drift_v1 import DecisionView, EpisodeView, FeatureDrift, PerformanceView, WindowView
from modelyard_stats.scoring import FeatureScore, WindowScore

from modelyard_drift.domain.episodes import Episode
from modelyard_drift.domain.performance import Performance
from modelyard_drift.domain.severity import PREDICTION_NAME, Severity
from modelyard_drift.domain.windows import Closed, OpenWindow
from modelyard_drift.usecases.ports import Decided

__all__ = ["decision_view", "episode_view", "open_view", "performance_view", "window_id", "window_view"]


def window_id(index: int) -> str:
    """Return the id of a model's window."""
    return f"w{index}"


def feature_view(score: FeatureScore, *, name: str | None = None) -> FeatureDrift:
    """Return one feature's score as it is shown."""
    return FeatureDrift(
        feature=name or score.feature,
        psi=score.psi,
        p_value=score.p_value,
        q_value=score.q_value,
        keys=score.keys,
        importance=score.importance,
        matters=score.matters,
        drifted=score.drifted,
        missing=score.missing,
        unseen=score.unseen,
        out_of_range=score.out_of_range,
    )


def performance_view(entry: Performance, *, everybody: str) -> PerformanceView:
    """Return a metric as it is shown; ``everybody`` is what stands for all versions together."""
    return PerformanceView(
        version=entry.version or everybody,
        metric=entry.metric,
        value=entry.value,
        low=entry.low,
        high=entry.high,
        rows=entry.rows,
    )


def performance_views(performance: Sequence[Performance]) -> tuple[PerformanceView, ...]:
    """Return the metrics by version; rows of all versions together are left out, they are the sum of these."""
    return tuple(performance_view(entry, everybody="") for entry in performance if entry.version)


def window_view(
    model: str,
    closed: Closed,
    score: WindowScore,
    *,
    faults: Sequence[str],
    severity: Severity,
    performance: Sequence[Performance],
) -> WindowView:
    """Return a closed window as it is shown."""
    window = closed.window
    return WindowView(
        id=window_id(window.index),
        model=model,
        index=window.index,
        reference=window.reference,
        state="scored" if score.sufficient else "insufficient",
        closed_by=closed.by,
        rows=window.rows,
        first_seq=window.first_seq,
        last_seq=window.last_seq,
        first_row=window.first_row,
        event_time_from=window.time_from,
        event_time_until=window.time_until,
        features=tuple(feature_view(feature) for feature in score.features),
        prediction=feature_view(score.prediction, name=PREDICTION_NAME) if score.prediction else None,
        quality=tuple(faults),
        severity=severity,
        performance=performance_views(performance),
    )


def open_view(model: str, window: OpenWindow) -> WindowView:
    """Return the open window as it is shown."""
    return WindowView(
        id=window_id(window.index),
        model=model,
        index=window.index,
        reference=window.reference,
        state="open",
        rows=window.rows,
        first_seq=window.first_seq,
        last_seq=window.last_seq,
        first_row=window.first_row,
        event_time_from=window.time_from,
        event_time_until=window.time_until,
    )


def decision_view(decision: Decided) -> DecisionView:
    """Return a decision as it is shown."""
    return DecisionView(
        id=decision.id,
        model=decision.model,
        episode=decision.episode,
        at_event_time=decision.at_event_time,
        decision=decision.decision,
        trigger=decision.trigger,
        reason=decision.reason,
        run=decision.run,
        command=decision.command,
    )


def episode_view(model: str, episode: Episode, decision: Decided | None) -> EpisodeView:
    """Return an episode as it is shown."""
    return EpisodeView(
        id=episode.id,
        model=model,
        reference=episode.reference,
        features=episode.features,
        severity="low" if episode.severity == "none" else episode.severity,
        opened_window=episode.opened_window,
        opened_row=episode.opened_row,
        window_first_row=episode.window_first_row,
        opened_at=episode.opened_at,
        closed_at=episode.closed_at,
        closed_by=episode.closed_by,
        windows=episode.windows,
        decision=decision_view(decision) if decision is not None else None,
    )
