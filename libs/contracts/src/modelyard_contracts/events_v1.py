"""Prediction events: what inference logs of each row it answers, and how batches of them travel to drift.

The envelope is a CloudEvents 1.0 batch in spirit, made compact: one JSON object with the common attributes and
an array of rows, since at full speed the envelope of each row would outweigh the row. ``prediction_blocks_v1`` says the
same in less.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelyard_contracts.base import Request, StoredText, UtcTime, View
from modelyard_contracts.refs import DigestText, ModelName

__all__ = ["MAX_EVENTS", "EventBatch", "EventReceipt", "FeatureValue", "PredictionEvent"]

FeatureValue = float | int | str | bool | None
MAX_EVENTS = 5000
"""Rows of one request to drift."""


class PredictionEvent(Request):
    """One row of one response (or of one shadow copy)."""

    id: StoredText = Field(min_length=1, max_length=198)
    """``<modelyard-prediction-id>/<row>``; for a shadow copy the same id: (id, role) is unique."""
    model: ModelName
    revision: int = Field(ge=0, le=2**53)
    """Of the routing table that was in force."""
    champion: DigestText
    """The champion of that revision, whoever answered."""
    version: DigestText
    """Who answered."""
    role: Literal["champion", "candidate", "shadow"]
    routing_key: StoredText = Field("", max_length=512)
    event_time: UtcTime
    arrival: UtcTime
    features: dict[str, FeatureValue] = {}
    """Empty when the answer was an error, or when payloads are not sampled. A feature that is left out is redacted, and
    counted nowhere; one that is null was missing."""
    sampled: bool = True
    prediction: FeatureValue = None
    score: float | None = None
    """Probability of the positive class, where there is one."""
    latency_ms: float = Field(ge=0)
    error: StoredText | None = None
    """A candidate's failure that the champion answered for; counted against the candidate."""


class EventBatch(Request):
    """``POST /v1/events``. A 2xx means that all of it is committed; known ids are counted as duplicates."""

    source: str
    """Which inference instance sends."""
    events: tuple[PredictionEvent, ...] = Field(max_length=MAX_EVENTS)


class EventReceipt(View):
    """What became of a batch."""

    accepted: int
    duplicates: int
    refused: int = 0
    """Event times more than ten minutes ahead of the clock, of a model that is not in replay mode."""
    last_seq: int
    """Of drift's durable ingest sequence."""
