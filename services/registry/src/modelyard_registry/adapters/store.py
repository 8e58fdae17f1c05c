"""Changes the registry's tables: one transaction, every change of which is told to the ledger and the watchers.

Writers of one model exclude each other by its row; the ledger and the events are put in the order of commits by
one more row, ``heads``. Locks are always taken in that order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

from modelyard_common.db import Database, WriteSession
from modelyard_common.db.idempotency import recall, remember
from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.registry_v1 import RoutingTable
from sqlalchemy import delete, func, select

from modelyard_registry.adapters.encoding import model_of, rollout_values, version_values
from modelyard_registry.adapters.reader import SqlReader
from modelyard_registry.adapters.tables import (
    EventRow,
    HeadRow,
    IdempotencyRow,
    LedgerRow,
    MirrorRow,
    ModelRow,
    PromotionRow,
    ReignRow,
    ReportRow,
    RolloutRow,
    RoutingRow,
    VersionRow,
)
from modelyard_registry.domain.ledger import GENESIS, Head, append
from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases.records import MirrorTask, Model, Promotion, Report, Version

__all__ = ["SqlStore", "SqlTransactions"]

EVENTS_KEPT = 10_000
"""A watcher that was away for longer begins anew with a snapshot."""


class SqlStore(SqlReader):
    """Implements the use cases' ``Store`` on a SQLAlchemy session that writes."""

    def __init__(self, session: WriteSession) -> None:
        super().__init__(session)
        self._writer = session
        self.announced = False
        """Watchers and the mirror have something to do once this is committed."""

    def lock_model(self, name: str) -> Model | None:
        """Return the model and keep every other writer of it out until the transaction ends."""
        row = self._locked_model(name)
        if row is None:
            # There is no row to lock yet: two first writers exclude each other by the name instead.
            self._lock_name(name)
            row = self._locked_model(name)
        return model_of(row) if row else None

    def _lock_name(self, name: str) -> None:
        """Wait for other first writers of a name; SQLite has one writer anyway."""
        if self._writer.get_bind().dialect.name == "postgresql":
            self._writer.execute(select(func.pg_advisory_xact_lock(crc32(name.encode()))))

    def _locked_model(self, name: str) -> ModelRow | None:
        query = select(ModelRow).where(ModelRow.name == name).with_for_update()
        return self._session.scalars(query.execution_options(populate_existing=True)).one_or_none()

    def save_model(self, model: Model) -> None:
        """Insert or update a model."""
        values = {
            "generation": model.generation,
            "spec": dict(model.written),
            "spec_digest": model.spec_digest,
            "training_digest": model.training_digest,
            "created": model.created,
            "updated": model.updated,
            "deleted": model.deleted,
        }
        self._put(ModelRow, {"name": model.name}, values)

    def next_number(self, model: str) -> int:
        """Return the number of the next version; numbers are never reused."""
        newest = self._session.scalar(select(func.max(VersionRow.number)).where(VersionRow.model == model))
        return (newest or 0) + 1

    def save_version(self, version: Version) -> None:
        """Insert or update a version."""
        self._put(VersionRow, {"model": version.model, "digest": version.digest}, version_values(version))

    def add_reign(self, model: str, digest: str, since: datetime) -> None:
        """Remember that a version became champion."""
        newest = self._session.scalar(select(func.max(ReignRow.seq)).where(ReignRow.model == model))
        self._session.add(ReignRow(model=model, seq=(newest or 0) + 1, digest=digest, since=since))
        self._session.flush()

    def save_rollout(self, rollout: Rollout) -> None:
        """Insert or update a rollout."""
        values = rollout_values(rollout)
        if self._session.get(RolloutRow, rollout.id) is None:
            newest = self._session.scalar(select(func.max(RolloutRow.seq)).where(RolloutRow.model == rollout.model))
            values["seq"] = (newest or 0) + 1
        self._put(RolloutRow, {"id": rollout.id}, values)

    def save_promotion(self, promotion: Promotion) -> None:
        """Insert or update a promotion."""
        values = {
            "model": promotion.model,
            "version": promotion.version,
            "state": promotion.state,
            "kind": promotion.kind,
            "reason": promotion.reason,
            "created": promotion.created,
            "rollout": promotion.rollout,
        }
        self._put(PromotionRow, {"id": promotion.id}, values)

    def publish(self, table: RoutingTable, at: datetime) -> None:
        """Put a routing table into force and announce it."""
        body = table.model_dump(mode="json")
        seq = self._event("routing", table.model, at, body)
        self._put(RoutingRow, {"model": table.model}, {"revision": table.revision, "seq": seq, "body": body})

    def announce(self, model: str, at: datetime) -> None:
        """Announce that a model changed."""
        self._event("model", model, at, None)

    def skip_events(self, number: int) -> None:
        """Leave that many numbers of events out, because they may have been given already."""
        self._heads().event_seq += number
        self._session.flush()

    def save_report(self, report: Report) -> None:
        """Keep the last report of an instance."""
        values = {
            "digest": report.digest,
            "revision": report.revision,
            "outcome": report.outcome,
            "reason": report.reason,
            "at": report.at,
        }
        self._put(ReportRow, {"model": report.model, "instance": report.instance}, values)

    def record(self, *, at: datetime, actor: str, kind: str, model: str, subject: str, body: Mapping[str, Any]) -> None:
        """Append to the ledger."""
        heads = self._heads()
        plain = json.loads(canonical_json(dict(body)))
        head = Head(heads.ledger_seq, heads.ledger_hash)
        entry = append(head, at=at, actor=actor, kind=kind, model=model, subject=subject, body=plain)
        row = LedgerRow(
            seq=entry.seq,
            at=at,
            actor=actor,
            kind=kind,
            model=model,
            subject=subject,
            body=canonical_json(plain).decode(),
            previous=entry.previous,
            hash=entry.hash,
        )
        self._session.add(row)
        heads.ledger_seq, heads.ledger_hash = entry.seq, entry.hash
        self._session.flush()

    def want_mirror(self, model: str, at: datetime) -> None:
        """Note that the mirror of a model is behind."""
        self.announced = True
        row = self._session.get(MirrorRow, model)
        if row is None:
            row = MirrorRow(model=model, wanted=0, done=0, attempts=0, next_at=at, error="")
            self._session.add(row)
        row.wanted += 1
        self._session.flush()

    def recall(self, key: str, request: str) -> dict[str, Any] | None:
        """Return the first answer to an idempotency key; raise Conflict when it was used for another request."""
        return recall(self._writer, IdempotencyRow, key, request)

    def remember(self, key: str, request: str, answer: dict[str, Any], now: datetime) -> None:
        """Keep the answer to an idempotency key."""
        remember(self._writer, IdempotencyRow, key=key, digest=request, response=answer, now=now)

    def mirror_done(self, task: MirrorTask) -> None:
        """Note that the mirror has seen a change."""
        self._put(MirrorRow, {"model": task.model}, {"done": task.wanted, "attempts": 0, "error": ""})

    def mirror_failed(self, task: MirrorTask, error: str, next_at: datetime) -> None:
        """Note that the mirror could not be brought up to date, and when to try again."""
        values = {"attempts": task.attempts + 1, "error": error, "next_at": next_at}
        self._put(MirrorRow, {"model": task.model}, values)

    def _event(self, kind: str, model: str, at: datetime, routing: dict[str, Any] | None) -> int:
        heads = self._heads()
        heads.event_seq += 1
        self._session.add(EventRow(seq=heads.event_seq, at=at, kind=kind, model=model, routing=routing))
        if heads.event_seq % 256 == 0:
            self._session.execute(delete(EventRow).where(EventRow.seq <= heads.event_seq - EVENTS_KEPT))
        self._session.flush()
        self.announced = True
        return heads.event_seq

    def _heads(self) -> HeadRow:
        query = select(HeadRow).where(HeadRow.id == 1).with_for_update()
        row = self._session.scalars(query.execution_options(populate_existing=True)).one_or_none()
        if row is None:
            # Only a database that was never migrated lacks it; the migration inserts it.
            row = HeadRow(id=1, ledger_seq=0, ledger_hash=GENESIS, event_seq=0)
            self._session.add(row)
            self._session.flush()
        return row

    def _put(self, table: type[Any], key: dict[str, Any], values: dict[str, Any]) -> None:
        """Insert or update one row and send it, so that constraints speak up where the change is made."""
        row = self._session.get(table, key)
        if row is None:
            self._session.add(table(**key, **values))
        else:
            for name, value in values.items():
                setattr(row, name, value)
        self._session.flush()


@dataclass(frozen=True, slots=True)
class SqlTransactions:
    """Implements the use cases' ``Transactions``."""

    database: Database
    announce: Callable[[], None]
    """Called after a commit that watchers or the mirror have to hear of."""

    @contextmanager
    def read(self) -> Iterator[SqlReader]:
        """Open a transaction that only reads."""
        with self.database.read() as session:
            yield SqlReader(session)

    @contextmanager
    def write(self) -> Iterator[SqlStore]:
        """Open a transaction that may change things; leaving the block commits."""
        with self.database.write() as session:
            store = SqlStore(session)
            yield store
        if store.announced:
            self.announce()
