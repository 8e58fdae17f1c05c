"""The prediction log: appended to by ingest, read in its order by processing, trimmed by retention."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelyard_contracts.events_v1 import PredictionEvent
from sqlalchemy import insert, or_, select, update

from modelyard_drift.adapters.records import entry_from, log_from, reply_from
from modelyard_drift.adapters.store.session import Reading, Writing, chunks, is_answer
from modelyard_drift.adapters.tables import LogRow, PredictionRow, ProgressRow
from modelyard_drift.domain.comparing import Reply
from modelyard_drift.usecases.ports import Entry, LogState

__all__ = ["ReadsPredictions", "WritesPredictions"]


class ReadsPredictions(Reading):
    """Reads the log."""

    def log(self, model: str) -> LogState | None:
        """Return where a model's log stands; None when nothing ever came."""
        row = self._session.get(LogRow, model)
        return log_from(row) if row is not None else None

    def backlog(self) -> Sequence[str]:
        """Return the models whose log is ahead of processing."""
        behind = or_(
            ProgressRow.model.is_(None),
            LogRow.prediction_seq > ProgressRow.processed_seq,
            LogRow.label_seq > ProgressRow.label_cursor,
        )
        query = select(LogRow.model).outerjoin(ProgressRow, ProgressRow.model == LogRow.model).where(behind)
        return list(self._session.scalars(query.order_by(LogRow.model)))

    def entries(self, model: str, *, after: int, limit: int) -> Sequence[Entry]:
        """Return the next rows of the log, in the order of ingest."""
        query = (
            select(PredictionRow)
            .where(PredictionRow.model == model, PredictionRow.seq > after)
            .order_by(PredictionRow.seq)
            .limit(limit)
        )
        return [entry_from(row) for row in self._session.scalars(query)]

    def replies(self, model: str, revision: int, *, limit: int) -> Sequence[Reply]:
        """Return the newest rows of a routing revision, of every role."""
        query = (
            select(PredictionRow)
            .where(PredictionRow.model == model, PredictionRow.revision == revision)
            .order_by(PredictionRow.seq.desc())
            .limit(limit)
        )
        return [reply_from(row) for row in self._session.scalars(query)]

    def prediction_ids(self, model: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Return (seq, id) of answers in the log, in the order of ingest."""
        query = (
            select(PredictionRow.seq, PredictionRow.id)
            .where(PredictionRow.model == model, PredictionRow.seq > after, is_answer())
            .order_by(PredictionRow.seq)
            .limit(limit)
        )
        return [(seq, id_) for seq, id_ in self._session.execute(query)]


class WritesPredictions(ReadsPredictions, Writing):
    """Appends to the log."""

    def lock_log(self, model: str) -> LogState:
        """Lock a model's log against other ingest and return where it stands."""
        self._ensure(LogRow, model)
        row = self._session.scalar(select(LogRow).where(LogRow.model == model).with_for_update())
        assert row is not None  # noqa: S101  # it was inserted above
        return log_from(row)

    def known_events(self, model: str, ids: Sequence[str]) -> set[tuple[str, str]]:
        """Return which (id, role) of these ids are in the log."""
        known: set[tuple[str, str]] = set()
        for some in chunks(ids):
            query = select(PredictionRow.id, PredictionRow.role).where(
                PredictionRow.model == model, PredictionRow.id.in_(some)
            )
            known.update((id_, role) for id_, role in self._session.execute(query))
        return known

    def answered_ids(self, model: str, ids: Sequence[str]) -> set[str]:
        """Return which of these rows were answered."""
        known: set[str] = set()
        for some in chunks(ids):
            query = select(PredictionRow.id).where(
                PredictionRow.model == model, PredictionRow.id.in_(some), is_answer()
            )
            known.update(self._session.scalars(query))
        return known

    def append_events(self, model: str, first_seq: int, events: Sequence[PredictionEvent]) -> None:
        """Append rows under sequence numbers from first_seq on."""
        if not events:
            return
        self._writing.execute(
            insert(PredictionRow),
            [
                {
                    "model": model,
                    "seq": first_seq + place,
                    "id": event.id,
                    "role": event.role,
                    "revision": event.revision,
                    "champion": event.champion,
                    "version": event.version,
                    "routing_key": event.routing_key,
                    "event_time": event.event_time,
                    "arrival": event.arrival,
                    "features": json.dumps(event.features, separators=(",", ":")),
                    "sampled": event.sampled,
                    "prediction": json.dumps(event.prediction),
                    "score": event.score,
                    "latency_ms": event.latency_ms,
                    "error": event.error,
                }
                for place, event in enumerate(events)
            ],
        )

    def save_log(self, model: str, state: LogState) -> None:
        """Keep where a model's log stands."""
        self._writing.execute(
            update(LogRow)
            .where(LogRow.model == model)
            .values(
                seq=state.seq,
                prediction_seq=state.prediction_seq,
                label_seq=state.label_seq,
                requests=state.requests,
                labels=state.labels,
                waiting=state.waiting,
            )
        )
