"""What is written of each request that is answered, and of each of its rows.

A block is written while the caller waits, so it holds what all rows share once, and their values end to end. A record
is one row of it, field by field the wire's ``PredictionEvent``; blocks become records when they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from modelyard_inference.domain.requests import Role

__all__ = ["Block", "PredictionRecord", "TracedRecord"]


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One row of one response, or of one shadow copy."""

    id: str
    model: str
    revision: int
    champion: str
    version: str
    role: Role
    event_time: datetime
    arrival: datetime
    latency_ms: float
    queue_ms: float = 0.0
    """The part of it before the model ran. Stays here: drift does not ask for it."""
    routing_key: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    sampled: bool = True
    prediction: Any = None
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TracedRecord(PredictionRecord):
    """One whose trace is recorded. Apart, so that all others are neither built nor written with a field of nothing."""

    traceparent: str = ""


class Block(NamedTuple):
    """The records of one answer. Only ever longer: a spool that an older version wrote is read by a newer one.

    Attributes:
        rows: how many.
        event_times: one for all rows, or one a row.
        names: of the features; empty where they are not sampled.
        values: of each row its features, end to end.
        predictions: one a row; empty where there are none.
        scores: one a row; None where there are none.
        traceparent: of the trace that is recorded, if one is.
    """

    id: str
    rows: int
    model: str
    revision: int
    champion: str
    version: str
    role: Role
    event_times: Sequence[datetime]
    arrival: datetime
    latency_ms: float
    routing_key: str
    sampled: bool
    names: Sequence[str]
    values: Sequence[Any]
    predictions: Sequence[Any]
    scores: Sequence[float | None] | None
    error: str | None = None
    traceparent: str | None = None
    first_row: int = 0
    queue_ms: float = 0.0

    def records(self) -> Iterator[PredictionRecord]:
        """Return its rows."""
        width, once = len(self.names), len(self.event_times) == 1
        for row in range(self.rows):
            features = self.values[row * width : (row + 1) * width]
            fields: dict[str, Any] = {
                "id": f"{self.id}/{self.first_row + row}",
                "model": self.model,
                "revision": self.revision,
                "champion": self.champion,
                "version": self.version,
                "role": self.role,
                "event_time": self.event_times[0 if once else row],
                "arrival": self.arrival,
                "latency_ms": self.latency_ms,
                "queue_ms": self.queue_ms,
                "routing_key": self.routing_key,
                "features": dict(zip(self.names, features, strict=True)),
                "sampled": self.sampled,
                "prediction": self.predictions[row] if self.predictions else None,
                "score": self.scores[row] if self.scores is not None else None,
                "error": self.error,
            }
            if self.traceparent is None:
                yield PredictionRecord(**fields)
            else:
                yield TracedRecord(**fields, traceparent=self.traceparent)

    def parts(self, most: int) -> Iterator[Block]:
        """Return the same rows in blocks of at most so many. Law: together they have the same records."""
        if self.rows <= most:
            yield self
            return
        width, once = len(self.names), len(self.event_times) == 1
        for start in range(0, self.rows, most):
            end = min(start + most, self.rows)
            yield self._replace(
                rows=end - start,
                event_times=self.event_times if once else self.event_times[start:end],
                values=self.values[start * width : end * width],
                predictions=self.predictions[start:end],
                scores=None if self.scores is None else self.scores[start:end],
                first_row=self.first_row + start,
            )


@dataclass(frozen=True, slots=True)
class Totals:
    """What one version has done since this process started.

    Attributes:
        predict_s: seconds to check rows and to run the model, of all answers together.
    """

    answers: int
    failures: int
    rows: int
    predict_s: float
