"""Write down what was answered: one record a row, stamped with the revision and champion that were in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from modelyard_inference.domain.answers import Answers
from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.records import PredictionRecord, TracedRecord
from modelyard_inference.domain.requests import Query, Role
from modelyard_inference.domain.routing import samples
from modelyard_inference.usecases.serving import LoadedVersion, Serving

__all__ = ["Ask", "answer_records", "error_records"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with the snapshot that it is answered from and the id that it got."""

    query: Query
    serving: Serving
    prediction_id: str
    traceparent: str | None = None
    """The trace that its records name, where one is recorded."""


def answer_records(
    ask: Ask,
    loaded: LoadedVersion,
    role: Role,
    bound: Bound,
    answers: Answers,
    latency_s: float,
    *,
    queue_s: float = 0.0,
) -> list[PredictionRecord]:
    """Return the records of an answer; ``queue_s`` of ``latency_s`` went by before the model ran."""
    count = ask.query.rows.count
    routing = ask.serving.routing
    sampled = samples(ask.prediction_id, routing.log_payloads)
    features: Sequence[dict[str, Any]] = (
        loaded.binder.features(bound, redact=routing.redact) if sampled else [{}] * count
    )
    scores: Sequence[float | None] = answers.scores if answers.scores is not None else (None,) * count
    return _records(ask, loaded, role, latency_s, features, sampled, answers.labels, scores, None, queue_s)


def error_records(ask: Ask, loaded: LoadedVersion, role: Role, error: str, latency_s: float) -> list[PredictionRecord]:
    """Return the records of a version's failure; they hold no values."""
    count = ask.query.rows.count
    nothing: Sequence[None] = (None,) * count
    return _records(ask, loaded, role, latency_s, [{}] * count, True, nothing, nothing, error)


def _records(  # private, and on the hot path
    ask: Ask,
    loaded: LoadedVersion,
    role: Role,
    latency_s: float,
    features: Sequence[dict[str, Any]],
    sampled: bool,
    predictions: Sequence[Any],
    scores: Sequence[float | None],
    error: str | None,
    queue_s: float = 0.0,
) -> list[PredictionRecord]:
    query, serving = ask.query, ask.serving
    latency_ms, queue_ms = round(latency_s * 1e3, 4), round(queue_s * 1e3, 4)
    make = PredictionRecord if ask.traceparent is None else partial(TracedRecord, traceparent=ask.traceparent)
    return [
        make(
            id=f"{ask.prediction_id}/{row}",
            model=query.model,
            revision=serving.routing.revision,
            champion=serving.champion.version.digest,
            version=loaded.version.digest,
            role=role,
            event_time=_event_time(query, row),
            arrival=query.arrival,
            latency_ms=latency_ms,
            queue_ms=queue_ms,
            routing_key=query.routing_key or "",
            features=features[row],
            sampled=sampled,
            prediction=predictions[row],
            score=scores[row],
            error=error,
        )
        for row in range(query.rows.count)
    ]


def _event_time(query: Query, row: int) -> datetime:
    times = query.event_times
    if not times:
        return query.arrival
    return times[0] if len(times) == 1 else times[row]
