"""The tables of the training service. Migrations under ``modelyard_training/migrations`` agree with them (tested)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard_common.db import JsonColumn, UtcDateTime
from sqlalchemy import BigInteger, Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "ClaimRow", "DatasetRow", "LockRow", "ModelRow", "RunRow", "ScheduleRow"]


class Base(DeclarativeBase):
    """All tables of this service."""


class DatasetRow(Base):
    """A dataset version; its bytes are a file named by the digest."""

    __tablename__ = "datasets"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    columns: Mapped[list[dict[str, Any]]] = mapped_column(JsonColumn)
    created: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    name: Mapped[str] = mapped_column(String(200), default="")


class RunRow(Base):
    """A training run. Ids sort by the time that they were made."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_model_state", "model", "state"),
        Index("ix_runs_state_settled", "state", "settled"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16))
    trigger: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    spec: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    training_digest: Mapped[str] = mapped_column(String(71))
    until_label_seq: Mapped[int | None] = mapped_column(BigInteger)
    timeout_s: Mapped[float] = mapped_column(Double)
    stage: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[float] = mapped_column(Double, default=0.0)
    reason: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    started: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)
    stopping: Mapped[str | None] = mapped_column(String(16))
    stopping_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    settled: Mapped[bool] = mapped_column(default=False)
    report_seq: Mapped[int] = mapped_column(BigInteger, default=-1)
    report_digest: Mapped[str] = mapped_column(String(64), default="")
    version: Mapped[str | None] = mapped_column(String(71))
    mlflow_run_id: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, float]] = mapped_column(JsonColumn)
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn)
    traceparent: Mapped[str | None] = mapped_column(String(55))


class ClaimRow(Base):
    """A key under which a run was asked for: the same key is the same run, whoever is first."""

    __tablename__ = "claims"

    key: Mapped[str] = mapped_column(String(400), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    request_digest: Mapped[str] = mapped_column(String(64), default="")


class ModelRow(Base):
    """A model's policy as the registry last told it."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    training_digest: Mapped[str] = mapped_column(String(71))
    spec: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    champion: Mapped[str | None] = mapped_column(String(71))
    deleted: Mapped[bool] = mapped_column(default=False)


class ScheduleRow(Base):
    """A cron trigger and its next due time. Whoever moves it on holds the row: replicas fire it once."""

    __tablename__ = "schedules"

    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    cron: Mapped[str] = mapped_column(String(200), primary_key=True)
    next_due: Mapped[datetime] = mapped_column(UtcDateTime)
    last_due: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_run: Mapped[str | None] = mapped_column(String(40))
    note: Mapped[str] = mapped_column(Text, default="")
    retry_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LockRow(Base):
    """A row that transactions lock when what they need to keep still has no row of its own."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
