"""What is written of each row that is answered. Field by field the wire's ``PredictionEvent``, built a lot faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelyard_inference.domain.requests import Role

__all__ = ["PredictionRecord", "TracedRecord"]


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
