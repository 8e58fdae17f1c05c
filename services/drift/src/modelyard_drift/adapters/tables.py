"""The tables of drift. Migrations under ``modelyard_drift/migrations`` agree with them (tested).

Each table has one writer: ``logs``, ``predictions`` and ``labels`` are written by ingest, ``policies`` and
``baselines`` by what reads the registry, the rest by processing. That keeps ingest from waiting for a window.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard_common.db import JsonColumn, UtcDateTime
from sqlalchemy import BigInteger, Boolean, Double, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "BaselineRow",
    "DecisionRow",
    "EpisodeRow",
    "LabelRow",
    "LogRow",
    "PolicyRow",
    "PredictionRow",
    "ProgressRow",
    "WindowRow",
]

_MODEL = String(63)
_DIGEST = String(71)
_ID = String(200)


class Base(DeclarativeBase):
    """All tables of this service."""


class LogRow(Base):
    """Where a model's log stands. Ingest locks this row, so that sequence numbers are committed in their order."""

    __tablename__ = "logs"

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, default=0)
    prediction_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    label_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    labels: Mapped[int] = mapped_column(BigInteger, default=0)
    waiting: Mapped[int] = mapped_column(BigInteger, default=0)


class PredictionRow(Base):
    """One answered row, shadow copy or failure."""

    __tablename__ = "predictions"
    __table_args__ = (
        UniqueConstraint("model", "id", "role", name="uq_predictions_model_id_role"),
        Index("ix_predictions_model_revision", "model", "revision"),
    )

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(_ID)
    role: Mapped[str] = mapped_column(String(9))
    revision: Mapped[int] = mapped_column(BigInteger)
    champion: Mapped[str] = mapped_column(_DIGEST)
    version: Mapped[str] = mapped_column(_DIGEST)
    routing_key: Mapped[str] = mapped_column(Text)
    event_time: Mapped[datetime] = mapped_column(UtcDateTime)
    arrival: Mapped[datetime] = mapped_column(UtcDateTime)
    features: Mapped[str] = mapped_column(Text)
    """JSON, as it was sent: never queried inside, so it needs no document type."""
    sampled: Mapped[bool] = mapped_column(Boolean)
    prediction: Mapped[str] = mapped_column(Text)
    score: Mapped[float | None] = mapped_column(Double)
    latency_ms: Mapped[float] = mapped_column(Double)
    error: Mapped[str | None] = mapped_column(Text)


class LabelRow(Base):
    """One label as it was received; corrections are further rows."""

    __tablename__ = "labels"
    __table_args__ = (UniqueConstraint("model", "prediction_id", "revision", name="uq_labels_prediction_revision"),)

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    prediction_id: Mapped[str] = mapped_column(_ID)
    revision: Mapped[int] = mapped_column(Integer)
    value: Mapped[str] = mapped_column(Text)
    joined: Mapped[bool] = mapped_column(Boolean)
    """Its prediction is in the log."""


class PolicyRow(Base):
    """A model's manifest, as the registry last told it."""

    __tablename__ = "policies"

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    spec_digest: Mapped[str] = mapped_column(_DIGEST)
    deleted: Mapped[bool] = mapped_column(Boolean, default=False)


class BaselineRow(Base):
    """The frozen bins of one version."""

    __tablename__ = "baselines"

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    document: Mapped[str] = mapped_column(Text)


class ProgressRow(Base):
    """How far processing has come with a model's log."""

    __tablename__ = "progress"

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    reference: Mapped[str | None] = mapped_column(_DIGEST)
    revision: Mapped[int] = mapped_column(BigInteger, default=-1)
    watermark: Mapped[datetime | None] = mapped_column(UtcDateTime)
    processed_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    label_cursor: Mapped[int] = mapped_column(BigInteger, default=0)
    labels_missing: Mapped[int] = mapped_column(BigInteger, default=0)
    window: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn)


class WindowRow(Base):
    """A closed window, with its counters."""

    __tablename__ = "windows"
    __table_args__ = (Index("ix_windows_model_last_seq", "model", "last_seq"),)

    model: Mapped[str] = mapped_column(_MODEL, primary_key=True)
    index: Mapped[int] = mapped_column("number", Integer, primary_key=True, autoincrement=False)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    view: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    counters: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    labelled: Mapped[int] = mapped_column(BigInteger, default=0)
    """Labelled rows in the performance that the view shows."""
    fresh_labels: Mapped[int] = mapped_column(BigInteger, default=0)
    """Labels that came since."""


class EpisodeRow(Base):
    """A lasting change."""

    __tablename__ = "episodes"
    __table_args__ = (Index("ix_episodes_model_opened", "model", "opened"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(_MODEL)
    opened: Mapped[int] = mapped_column(BigInteger)
    """Number among the model's episodes."""
    is_open: Mapped[bool] = mapped_column(Boolean)
    reference: Mapped[str] = mapped_column(_DIGEST)
    features: Mapped[list[str]] = mapped_column(JsonColumn)
    severity: Mapped[str] = mapped_column(String(8))
    opened_window: Mapped[str] = mapped_column(String(20))
    opened_row: Mapped[int] = mapped_column(BigInteger)
    window_first_row: Mapped[int] = mapped_column(BigInteger)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    windows: Mapped[int] = mapped_column(Integer)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    closed_by: Mapped[str] = mapped_column(Text)
    commanded: Mapped[bool] = mapped_column(Boolean)


class DecisionRow(Base):
    """What was decided about an episode; with ``command`` pending it waits to be delivered to training."""

    __tablename__ = "decisions"
    __table_args__ = (
        Index("ix_decisions_model_number", "model", "number"),
        Index("ix_decisions_command", "command"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(_MODEL)
    number: Mapped[int] = mapped_column(BigInteger)
    episode: Mapped[str] = mapped_column(String(40), index=True)
    at_event_time: Mapped[datetime] = mapped_column(UtcDateTime)
    decision: Mapped[str] = mapped_column(String(16))
    trigger: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    label_seq: Mapped[int] = mapped_column(BigInteger)
    command: Mapped[str] = mapped_column(String(10))
    run: Mapped[str | None] = mapped_column(String(40))
    traceparent: Mapped[str | None] = mapped_column(String(55))
