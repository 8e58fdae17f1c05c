"""Reads the registry's tables: one transaction's view of what is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, cast

from modelyard_contracts.registry_v1 import PromotionState, RoutingTable, WatchEvent
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from modelyard_registry.adapters.encoding import model_of, promotion_of, rollout_of, version_of
from modelyard_registry.adapters.tables import (
    EventRow,
    HeadRow,
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
from modelyard_registry.domain.ledger import Entry, Head
from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases.records import MirrorTask, Model, Promotion, Reign, Report, Version

__all__ = ["SqlReader"]

ACTIVE = ("running", "paused")


class SqlReader:
    """Implements the use cases' ``Reader`` on a SQLAlchemy session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def model(self, name: str) -> Model | None:
        """Return the model, also when it is deleted."""
        row = self._session.get(ModelRow, name)
        return model_of(row) if row else None

    def models(self, *, after: str = "", limit: int = 100) -> Sequence[Model]:
        """Return models that are not deleted, by name."""
        query = select(ModelRow).where(ModelRow.name > after, ModelRow.deleted.is_(False))
        return [model_of(row) for row in self._session.scalars(query.order_by(ModelRow.name).limit(limit))]

    def version(self, model: str, digest: str) -> Version | None:
        """Return the version with that digest."""
        row = self._session.get(VersionRow, (model, digest))
        return version_of(row) if row else None

    def version_number(self, model: str, number: int) -> Version | None:
        """Return the version with that number."""
        query = select(VersionRow).where(VersionRow.model == model, VersionRow.number == number)
        row = self._session.scalars(query).one_or_none()
        return version_of(row) if row else None

    def versions(self, model: str, *, before: int | None = None, limit: int = 100) -> Sequence[Version]:
        """Return versions, newest first."""
        query = select(VersionRow).where(VersionRow.model == model)
        if before is not None:
            query = query.where(VersionRow.number < before)
        rows = self._session.scalars(query.order_by(VersionRow.number.desc()).limit(limit))
        return [version_of(row) for row in rows]

    def versions_of_run(self, mlflow_run_id: str) -> Sequence[Version]:
        """Return the versions whose bundle lies in an MLflow run; usually one."""
        query = select(VersionRow).where(VersionRow.mlflow_run_id == mlflow_run_id).limit(100)
        return [version_of(row) for row in self._session.scalars(query)]

    def champion(self, model: str) -> Version | None:
        """Return the champion."""
        query = select(VersionRow).where(VersionRow.model == model, VersionRow.state == "champion")
        row = self._session.scalars(query).one_or_none()
        return version_of(row) if row else None

    def contenders(self, model: str, limit: int) -> Sequence[Version]:
        """Return former champions that stay in contention, the latest reign first."""
        latest = (
            select(ReignRow.digest, func.max(ReignRow.seq).label("seq"))
            .where(ReignRow.model == model)
            .group_by(ReignRow.digest)
            .subquery()
        )
        query = (
            select(VersionRow)
            .join(latest, latest.c.digest == VersionRow.digest)
            .where(VersionRow.model == model, VersionRow.state == "retired")
            .order_by(latest.c.seq.desc())
            .limit(limit)
        )
        return [version_of(row) for row in self._session.scalars(query)]

    def reigns(self, model: str) -> Sequence[Reign]:
        """Return the times as champion, newest first."""
        query = select(ReignRow).where(ReignRow.model == model).order_by(ReignRow.seq.desc())
        return [Reign(row.seq, row.digest, row.since) for row in self._session.scalars(query)]

    def active_rollout(self, model: str) -> Rollout | None:
        """Return the rollout that is running or paused."""
        query = select(RolloutRow).where(RolloutRow.model == model, RolloutRow.state.in_(ACTIVE))
        row = self._session.scalars(query).one_or_none()
        return rollout_of(row) if row else None

    def active_rollouts(self) -> Sequence[Rollout]:
        """Return all of them."""
        query = select(RolloutRow).where(RolloutRow.state.in_(ACTIVE)).order_by(RolloutRow.started)
        return [rollout_of(row) for row in self._session.scalars(query)]

    def rollouts(self, model: str, *, offset: int = 0, limit: int = 100) -> Sequence[Rollout]:
        """Return rollouts, newest first."""
        query = select(RolloutRow).where(RolloutRow.model == model).order_by(RolloutRow.seq.desc())
        return [rollout_of(row) for row in self._session.scalars(query.offset(offset).limit(limit))]

    def promotion(self, promotion_id: str) -> Promotion | None:
        """Return a promotion, as the database has it now."""
        row = self._session.get(PromotionRow, promotion_id, populate_existing=True)
        return promotion_of(row) if row else None

    def promotions(
        self, model: str, *, state: PromotionState | None = None, offset: int = 0, limit: int = 100
    ) -> Sequence[Promotion]:
        """Return promotions, of all states or of one, newest first."""
        query = select(PromotionRow).where(PromotionRow.model == model)
        if state is not None:
            query = query.where(PromotionRow.state == state)
        newest = query.order_by(PromotionRow.created.desc(), PromotionRow.id)
        return [promotion_of(row) for row in self._session.scalars(newest.offset(offset).limit(limit))]

    def waiting_promotions(self) -> Sequence[Promotion]:
        """Return those that nobody has decided, and that no decision about a later one has made old news."""
        later = aliased(PromotionRow)
        decided = exists().where(
            later.model == PromotionRow.model, later.state != "pending", later.created > PromotionRow.created
        )
        query = select(PromotionRow).where(PromotionRow.state == "pending", ~decided).order_by(PromotionRow.created)
        return [promotion_of(row) for row in self._session.scalars(query)]

    def routing(self, model: str) -> RoutingTable | None:
        """Return the routing table in force."""
        row = self._session.get(RoutingRow, model)
        return RoutingTable.model_validate(row.body) if row else None

    def report(self, model: str, instance: str) -> Report | None:
        """Return the last report of an inference instance."""
        row = self._session.get(ReportRow, (model, instance))
        if row is None:
            return None
        outcome = cast("Any", row.outcome)
        return Report(row.model, row.instance, row.digest, row.revision, outcome, row.reason, row.at)

    def ledger(self, *, model: str | None, after: int, limit: int) -> Sequence[Entry]:
        """Return entries in their order."""
        query = select(LedgerRow).where(LedgerRow.seq > after)
        if model is not None:
            query = query.where(LedgerRow.model == model)
        return [_entry(row) for row in self._session.scalars(query.order_by(LedgerRow.seq).limit(limit))]

    def ledger_head(self) -> Head:
        """Return the end of the chain, as it is kept apart from the entries."""
        row = self._session.get(HeadRow, 1)
        return Head(row.ledger_seq, row.ledger_hash) if row else Head()

    def chain(self) -> Iterator[Entry]:
        """Yield all entries from the first."""
        # By pages instead of a server-side cursor: whoever reads may stop at the first broken link.
        after = 0
        while page := self.ledger(model=None, after=after, limit=500):
            yield from page
            after = page[-1].seq

    def events(self, after: int, limit: int = 100) -> Sequence[WatchEvent]:
        """Return watch events after a sequence number."""
        query = select(EventRow).where(EventRow.seq > after).order_by(EventRow.seq).limit(limit)
        return [
            WatchEvent.model_validate({"seq": row.seq, "kind": row.kind, "model": row.model, "routing": row.routing})
            for row in self._session.scalars(query)
        ]

    def event_span(self) -> tuple[int, int]:
        """Return the oldest event that is kept and the newest that was given; (1, 0) when there is none."""
        oldest = self._session.scalar(select(func.min(EventRow.seq)))
        head = self._session.get(HeadRow, 1)
        return oldest or 1, head.event_seq if head else 0

    def routing_snapshot(self) -> Sequence[WatchEvent]:
        """Return the present routing of every model as the event that announced it, oldest first."""
        rows = self._session.scalars(select(RoutingRow).order_by(RoutingRow.seq))
        return [
            WatchEvent.model_validate({"seq": row.seq, "kind": "routing", "model": row.model, "routing": row.body})
            for row in rows
        ]

    def mirror_due(self, now: datetime, limit: int = 20) -> Sequence[MirrorTask]:
        """Return the models whose mirror is behind and may be tried now."""
        query = select(MirrorRow).where(MirrorRow.wanted > MirrorRow.done, MirrorRow.next_at <= now)
        rows = self._session.scalars(query.order_by(MirrorRow.next_at).limit(limit))
        return [MirrorTask(row.model, row.wanted, row.attempts, row.error) for row in rows]

    def mirror_pending(self) -> int:
        """Return how many mirrors are behind."""
        query = select(func.count()).select_from(MirrorRow).where(MirrorRow.wanted > MirrorRow.done)
        return self._session.scalar(query) or 0


def _entry(row: LedgerRow) -> Entry:
    body = json.loads(row.body)
    return Entry(row.seq, row.at, row.actor, row.kind, row.model, row.subject, body, row.previous, row.hash)
