"""The registry's tables. Their history is in ``migrations``; a test holds the two together.

Documents (specs, manifests, verdicts) are stored as they travel; what is searched or locked has a column.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard_common.db import JsonColumn, UtcDateTime
from modelyard_common.db.idempotency import IdempotencyKeys
from sqlalchemy import Boolean, ForeignKey, ForeignKeyConstraint, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DIGEST = 71
NAME = 63


class Base(DeclarativeBase):
    """The registry's own metadata."""


class ModelRow(Base):
    """A model and its policy."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    generation: Mapped[int] = mapped_column(Integer)
    spec: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    spec_digest: Mapped[str] = mapped_column(String(DIGEST))
    training_digest: Mapped[str] = mapped_column(String(DIGEST))
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    updated: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted: Mapped[bool] = mapped_column(Boolean)


class VersionRow(Base):
    """A governed version."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("model", "number", name="uq_versions_number"),
        Index("ix_versions_run", "mlflow_run_id"),
        Index(
            "uq_versions_one_champion",
            "model",
            unique=True,
            sqlite_where=text("state = 'champion'"),
            postgresql_where=text("state = 'champion'"),
        ),
    )

    model: Mapped[str] = mapped_column(String(NAME), ForeignKey("models.name"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    run: Mapped[str] = mapped_column(Text)
    registered: Mapped[datetime] = mapped_column(UtcDateTime)
    manifest: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn, nullable=True)
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn, nullable=True)
    mlflow_run_id: Mapped[str] = mapped_column(Text)
    artifact_path: Mapped[str] = mapped_column(Text)
    mlflow_version: Mapped[str | None] = mapped_column(String(32), nullable=True)
    mirrored_state: Mapped[str] = mapped_column(String(16))


class ReignRow(Base):
    """A time as champion."""

    __tablename__ = "reigns"
    __table_args__ = (ForeignKeyConstraint(["model", "digest"], ["versions.model", "versions.digest"]),)

    model: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST))
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class RolloutRow(Base):
    """A rollout; at most one of a model is under way."""

    __tablename__ = "rollouts"
    __table_args__ = (
        ForeignKeyConstraint(["model", "candidate"], ["versions.model", "versions.digest"]),
        UniqueConstraint("model", "seq", name="uq_rollouts_seq"),
        Index(
            "uq_rollouts_one_active",
            "model",
            unique=True,
            sqlite_where=text("state IN ('running', 'paused')"),
            postgresql_where=text("state IN ('running', 'paused')"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(NAME))
    seq: Mapped[int] = mapped_column(Integer)
    candidate: Mapped[str] = mapped_column(String(DIGEST))
    previous: Mapped[str | None] = mapped_column(String(DIGEST), nullable=True)
    state: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    started: Mapped[datetime] = mapped_column(UtcDateTime)
    ended: Mapped[datetime | None] = mapped_column(UtcDateTime, nullable=True)
    waiting_for: Mapped[str] = mapped_column(Text)
    steps: Mapped[list[Any]] = mapped_column(JsonColumn)
    abort_if: Mapped[list[Any]] = mapped_column(JsonColumn)
    traceparent: Mapped[str | None] = mapped_column(String(55), nullable=True)


class PromotionRow(Base):
    """A promotion asked for."""

    __tablename__ = "promotions"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.digest"]),
        Index("ix_promotions_model", "model", "created"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(NAME))
    version: Mapped[str] = mapped_column(String(DIGEST))
    state: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    rollout: Mapped[str | None] = mapped_column(String(32), nullable=True)


class RoutingRow(Base):
    """The routing table in force."""

    __tablename__ = "routing"

    model: Mapped[str] = mapped_column(String(NAME), ForeignKey("models.name"), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    seq: Mapped[int] = mapped_column(Integer)
    """Of the watch event that announced it."""
    body: Mapped[dict[str, Any]] = mapped_column(JsonColumn)


class EventRow(Base):
    """What watchers are told, in the order of commits."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(NAME))
    routing: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn, nullable=True)


class LedgerRow(Base):
    """One fact that was decided; rows are only ever added."""

    __tablename__ = "ledger"
    __table_args__ = (Index("ix_ledger_model", "model", "seq"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(NAME))
    subject: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    """Canonical JSON, as it was hashed: a database that reorders or rounds JSON would break the chain."""
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class HeadRow(Base):
    """The ends of the ledger and of the events, in one row: locking it puts all writers in one order."""

    __tablename__ = "heads"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    ledger_seq: Mapped[int] = mapped_column(Integer)
    ledger_hash: Mapped[str] = mapped_column(String(64))
    event_seq: Mapped[int] = mapped_column(Integer)


class ReportRow(Base):
    """The last word of an inference instance about a model."""

    __tablename__ = "runtime_reports"

    model: Mapped[str] = mapped_column(String(NAME), ForeignKey("models.name"), primary_key=True)
    instance: Mapped[str] = mapped_column(Text, primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST))
    revision: Mapped[int] = mapped_column(Integer)
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class MirrorRow(Base):
    """The durable work list of the MLflow mirror: one row a model."""

    __tablename__ = "mirror"

    model: Mapped[str] = mapped_column(String(NAME), ForeignKey("models.name"), primary_key=True)
    wanted: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    error: Mapped[str] = mapped_column(Text)


class IdempotencyRow(IdempotencyKeys, Base):
    """Answers to commands that carried an Idempotency-Key."""

    __tablename__ = "idempotency"
