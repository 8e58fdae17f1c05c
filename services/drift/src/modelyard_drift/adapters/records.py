"""Domain values to rows and back."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from modelyard_contracts.drift_v1 import WindowView
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_stats.counters import Counters

from modelyard_drift.adapters.tables import (
    DecisionRow,
    EpisodeRow,
    LogRow,
    PolicyRow,
    PredictionRow,
    ProgressRow,
    WindowRow,
)
from modelyard_drift.domain.comparing import Reply
from modelyard_drift.domain.episodes import Episode
from modelyard_drift.domain.windows import OpenWindow
from modelyard_drift.usecases.ports import Decided, Entry, LogState, Policy, Progress, StoredWindow

__all__ = [
    "decision_from",
    "decision_values",
    "entry_from",
    "episode_from",
    "episode_values",
    "log_from",
    "policy_from",
    "progress_from",
    "progress_values",
    "reply_from",
    "window_from",
    "window_values",
]


def log_from(row: LogRow) -> LogState:
    """Return where a model's log stands."""
    return LogState(
        seq=row.seq,
        prediction_seq=row.prediction_seq,
        label_seq=row.label_seq,
        requests=row.requests,
        labels=row.labels,
        waiting=row.waiting,
    )


def entry_from(row: PredictionRow) -> Entry:
    """Return a row of the log."""
    return Entry(
        seq=row.seq,
        role=row.role,
        revision=row.revision,
        champion=row.champion,
        event_time=row.event_time,
        features=json.loads(row.features),
        prediction=json.loads(row.prediction),
        score=row.score,
        sampled=row.sampled,
        error=row.error is not None,
    )


def reply_from(row: PredictionRow) -> Reply:
    """Return a row of the log as comparisons need it."""
    return Reply(
        id=row.id,
        version=row.version,
        role=row.role,
        prediction=json.loads(row.prediction),
        score=row.score,
        latency_ms=row.latency_ms,
        error=row.error is not None,
    )


def policy_from(row: PolicyRow) -> Policy:
    """Return a policy."""
    return Policy(row.model, ManagedModelSpec.model_validate(row.spec), row.spec_digest, row.deleted)


def progress_from(row: ProgressRow) -> Progress:
    """Return how far processing has come."""
    return Progress(
        reference=row.reference,
        revision=row.revision,
        watermark=row.watermark,
        processed_seq=row.processed_seq,
        label_cursor=row.label_cursor,
        labels_missing=row.labels_missing,
        window=None if row.window is None else _open_from(row.window),
    )


def progress_values(progress: Progress) -> dict[str, Any]:
    """Return the columns of how far processing has come."""
    return {
        "reference": progress.reference,
        "revision": progress.revision,
        "watermark": progress.watermark,
        "processed_seq": progress.processed_seq,
        "label_cursor": progress.label_cursor,
        "labels_missing": progress.labels_missing,
        "window": None if progress.window is None else _open_document(progress.window),
    }


def _open_document(window: OpenWindow) -> dict[str, Any]:
    return {
        "index": window.index,
        "reference": window.reference,
        "first_row": window.first_row,
        "counters": window.counters.to_document(),
        "rows": window.rows,
        "first_seq": window.first_seq,
        "last_seq": window.last_seq,
        "time_from": window.time_from.isoformat() if window.time_from else None,
        "time_until": window.time_until.isoformat() if window.time_until else None,
        "starts_at": window.starts_at.isoformat() if window.starts_at else None,
    }


def _open_from(document: dict[str, Any]) -> OpenWindow:
    document = {"starts_at": document["time_from"]} | document  # older documents have no start of their own
    times = {
        name: datetime.fromisoformat(document[name]) if document[name] else None
        for name in ("time_from", "time_until", "starts_at")
    }
    return OpenWindow(**(document | times | {"counters": Counters.from_document(document["counters"])}))


def window_from(row: WindowRow) -> StoredWindow:
    """Return a closed window."""
    return StoredWindow(
        index=row.index,
        first_seq=row.first_seq,
        last_seq=row.last_seq,
        rows=row.rows,
        view=WindowView.model_validate(row.view),
        counters=row.counters,
        labelled=row.labelled,
        fresh_labels=row.fresh_labels,
    )


def window_values(window: StoredWindow) -> dict[str, Any]:
    """Return the columns of a closed window."""
    return {
        "first_seq": window.first_seq,
        "last_seq": window.last_seq,
        "rows": window.rows,
        "view": window.view.model_dump(mode="json"),
        "counters": dict(window.counters),
        "labelled": window.labelled,
        "fresh_labels": window.fresh_labels,
    }


def episode_from(row: EpisodeRow) -> Episode:
    """Return an episode."""
    return Episode(
        id=row.id,
        reference=row.reference,
        features=tuple(row.features),
        severity=row.severity,  # type: ignore[arg-type]  # written from the same literal
        opened_window=row.opened_window,
        opened_row=row.opened_row,
        window_first_row=row.window_first_row,
        opened_at=row.opened_at,
        windows=row.windows,
        closed_at=row.closed_at,
        closed_by=row.closed_by,
        commanded=row.commanded,
    )


def episode_values(episode: Episode) -> dict[str, Any]:
    """Return the columns of an episode."""
    return {
        "is_open": episode.closed_at is None,
        "reference": episode.reference,
        "features": list(episode.features),
        "severity": episode.severity,
        "opened_window": episode.opened_window,
        "opened_row": episode.opened_row,
        "window_first_row": episode.window_first_row,
        "opened_at": episode.opened_at,
        "windows": episode.windows,
        "closed_at": episode.closed_at,
        "closed_by": episode.closed_by,
        "commanded": episode.commanded,
    }


def decision_from(row: DecisionRow) -> Decided:
    """Return a decision."""
    return Decided(
        id=row.id,
        model=row.model,
        episode=row.episode,
        at_event_time=row.at_event_time,
        decision=row.decision,
        trigger=row.trigger,
        reason=row.reason,
        label_seq=row.label_seq,
        command=row.command,
        run=row.run,
        traceparent=row.traceparent,
    )


def decision_values(decision: Decided) -> dict[str, Any]:
    """Return the columns of a decision that may change."""
    return {"reason": decision.reason, "command": decision.command, "run": decision.run}
