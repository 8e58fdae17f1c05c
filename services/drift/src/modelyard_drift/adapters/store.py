"""The store over SQLAlchemy: one object for one session; SQLite and PostgreSQL run the same tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from modelyard_common.db import Database, ReadSession, WriteSession
from modelyard_contracts.events_v1 import PredictionEvent
from sqlalchemy import Select, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from modelyard_drift.adapters.records import (
    decision_from,
    decision_values,
    entry_from,
    episode_from,
    episode_values,
    policy_from,
    progress_from,
    progress_values,
    reply_from,
    window_from,
    window_values,
)
from modelyard_drift.adapters.tables import (
    BaselineRow,
    DecisionRow,
    EpisodeRow,
    LabelRow,
    LogRow,
    PolicyRow,
    PredictionRow,
    ProgressRow,
    WindowRow,
)
from modelyard_drift.domain.comparing import Reply
from modelyard_drift.domain.episodes import Episode
from modelyard_drift.domain.performance import Answered
from modelyard_drift.usecases.ports import (
    Decided,
    Entry,
    KeptLabel,
    LabelledRow,
    LogState,
    Policy,
    Progress,
    Reader,
    StoredWindow,
    Writer,
)

__all__ = ["SqlReader", "SqlTransactions", "SqlWriter"]

_ASK_AT_ONCE = 500
"""Ids in one IN clause; SQLite takes at most 32,766 parameters, older ones 999."""
_ANSWERS = ("champion", "candidate")


def _is_answer() -> Any:
    """The row that the caller was given: never a shadow copy, never a failure."""
    return and_(PredictionRow.role.in_(_ANSWERS), PredictionRow.error.is_(None))


def _chunks(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(ids), _ASK_AT_ONCE):
        yield ids[start : start + _ASK_AT_ONCE]


def _newest_label(until: int | None = None) -> Any:
    """The condition that no later label of the same row (received up to ``until``) replaces this one."""
    later = aliased(LabelRow)
    condition = and_(
        later.model == LabelRow.model,
        later.prediction_id == LabelRow.prediction_id,
        later.revision > LabelRow.revision,
    )
    if until is not None:
        condition = and_(condition, later.seq <= until)
    return ~exists().where(condition)


class SqlReader:
    """Reads in one transaction."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    def policies(self) -> Sequence[Policy]:
        """Return all policies."""
        return [policy_from(row) for row in self._session.scalars(select(PolicyRow).order_by(PolicyRow.model))]

    def policy(self, model: str) -> Policy | None:
        """Return a model's policy."""
        row = self._session.get(PolicyRow, model)
        return policy_from(row) if row is not None else None

    def log(self, model: str) -> LogState | None:
        """Return where a model's log stands; None when nothing ever came."""
        row = self._session.get(LogRow, model)
        return _log_from(row) if row is not None else None

    def progress(self, model: str) -> Progress:
        """Return how far processing has come."""
        row = self._session.get(ProgressRow, model)
        return progress_from(row) if row is not None else Progress()

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

    def baseline(self, digest: str) -> str | None:
        """Return the baseline of a version."""
        row = self._session.get(BaselineRow, digest)
        return row.document if row is not None else None

    def answered(self, model: str, *, first_seq: int, last_seq: int) -> Sequence[Answered]:
        """Return the labelled rows of a part of the log."""
        query = self._joined(model).where(_is_answer(), PredictionRow.seq.between(first_seq, last_seq))
        return self._answered(query)

    def answered_in(self, model: str, revision: int) -> Sequence[Answered]:
        """Return the labelled rows of a routing revision, shadow copies included."""
        query = self._joined(model).where(PredictionRow.revision == revision, PredictionRow.error.is_(None))
        return self._answered(query)

    def _joined(self, model: str) -> Select[str, str, str, float | None]:
        return (
            select(PredictionRow.version, LabelRow.value, PredictionRow.prediction, PredictionRow.score)
            .join(LabelRow, and_(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id))
            .where(PredictionRow.model == model, _newest_label())
            .order_by(PredictionRow.seq)
        )

    def _answered(self, query: Select[str, str, str, float | None]) -> Sequence[Answered]:
        return [
            Answered(version=version, truth=json.loads(value), answer=json.loads(prediction), score=score)
            for version, value, prediction, score in self._session.execute(query)
        ]

    def replies(self, model: str, revision: int, *, limit: int) -> Sequence[Reply]:
        """Return the newest rows of a routing revision, of every role."""
        query = (
            select(PredictionRow)
            .where(PredictionRow.model == model, PredictionRow.revision == revision)
            .order_by(PredictionRow.seq.desc())
            .limit(limit)
        )
        return [reply_from(row) for row in self._session.scalars(query)]

    def labelled(self, model: str, until: int) -> Iterator[LabelledRow]:
        """Yield answered rows with labels received up to a sequence number, by event time, then ingest."""
        query = (
            select(
                PredictionRow.id,
                PredictionRow.event_time,
                LabelRow.seq,
                LabelRow.value,
                PredictionRow.prediction,
                PredictionRow.version,
                PredictionRow.features,
            )
            .join(LabelRow, and_(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id))
            .where(PredictionRow.model == model, _is_answer(), PredictionRow.sampled.is_(True))
            .where(LabelRow.seq <= until, _newest_label(until))
            .order_by(PredictionRow.event_time, PredictionRow.seq)
            .execution_options(yield_per=2000)
        )
        for id_, event_time, seq, value, prediction, version, features in self._session.execute(query):
            yield LabelledRow(
                id_, event_time, seq, json.loads(value), json.loads(prediction), version, json.loads(features)
            )

    def label_places(self, model: str, *, after: int, limit: int) -> tuple[int, Sequence[int]]:
        """Return (the last label seq looked at, the prediction seqs that those labels belong to)."""
        labels = (
            select(LabelRow.seq, LabelRow.prediction_id, LabelRow.joined)
            .where(LabelRow.model == model, LabelRow.seq > after)
            .order_by(LabelRow.seq)
            .limit(limit)
        )
        found = self._session.execute(labels).all()
        if not found:
            return after, []
        places: list[int] = []
        for ids in _chunks([id_ for _, id_, joined in found if joined]):
            query = select(PredictionRow.seq).where(
                PredictionRow.model == model, PredictionRow.id.in_(ids), _is_answer()
            )
            places += self._session.scalars(query)
        return found[-1][0], places

    def unlabelled(self, model: str, *, up_to: datetime) -> int:
        """Return how many answered rows up to an event time have no label."""
        labelled = exists().where(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id)
        query = (
            select(func.count())
            .select_from(PredictionRow)
            .where(PredictionRow.model == model, _is_answer(), PredictionRow.event_time <= up_to, ~labelled)
        )
        return self._session.scalar(query) or 0

    def windows(self, model: str, *, before: int | None, limit: int) -> Sequence[StoredWindow]:
        """Return closed windows, newest first."""
        query = select(WindowRow).where(WindowRow.model == model).order_by(WindowRow.index.desc()).limit(limit)
        if before is not None:
            query = query.where(WindowRow.index < before)
        return [window_from(row) for row in self._session.scalars(query)]

    def window(self, model: str, index: int) -> StoredWindow | None:
        """Return a closed window."""
        row = self._session.get(WindowRow, (model, index))
        return window_from(row) if row is not None else None

    def windows_with_fresh_labels(self, model: str) -> Sequence[StoredWindow]:
        """Return the closed windows that got labels since their performance was computed."""
        query = select(WindowRow).where(WindowRow.model == model, WindowRow.fresh_labels > 0).order_by(WindowRow.index)
        return [window_from(row) for row in self._session.scalars(query)]

    def episodes(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Episode]]:
        """Return (number, episode), newest first."""
        query = select(EpisodeRow).where(EpisodeRow.model == model).order_by(EpisodeRow.opened.desc()).limit(limit)
        if before is not None:
            query = query.where(EpisodeRow.opened < before)
        return [(row.opened, episode_from(row)) for row in self._session.scalars(query)]

    def open_episodes(self, model: str) -> Sequence[Episode]:
        """Return the open episodes, oldest first."""
        query = select(EpisodeRow).where(EpisodeRow.model == model, EpisodeRow.is_open.is_(True))
        return [episode_from(row) for row in self._session.scalars(query.order_by(EpisodeRow.opened))]

    def decisions(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Decided]]:
        """Return (number, decision), newest first."""
        query = select(DecisionRow).where(DecisionRow.model == model).order_by(DecisionRow.number.desc()).limit(limit)
        if before is not None:
            query = query.where(DecisionRow.number < before)
        return [(row.number, decision_from(row)) for row in self._session.scalars(query)]

    def last_decision(self, episode: str) -> Decided | None:
        """Return the newest decision about an episode."""
        query = select(DecisionRow).where(DecisionRow.episode == episode).order_by(DecisionRow.number.desc()).limit(1)
        row = self._session.scalar(query)
        return decision_from(row) if row is not None else None

    def command_times(self, model: str) -> Sequence[datetime]:
        """Return the event times of the commands so far."""
        query = select(DecisionRow.at_event_time).where(DecisionRow.model == model, DecisionRow.decision == "command")
        return list(self._session.scalars(query.order_by(DecisionRow.number)))

    def pending(self, model: str | None = None) -> Sequence[Decided]:
        """Return the commands that wait for delivery, oldest first."""
        query = select(DecisionRow).where(DecisionRow.command == "pending")
        if model is not None:
            query = query.where(DecisionRow.model == model)
        return [decision_from(row) for row in self._session.scalars(query.order_by(DecisionRow.number))]

    def prediction_ids(self, model: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Return (seq, id) of answers in the log, in the order of ingest."""
        query = (
            select(PredictionRow.seq, PredictionRow.id)
            .where(PredictionRow.model == model, PredictionRow.seq > after, _is_answer())
            .order_by(PredictionRow.seq)
            .limit(limit)
        )
        return [(seq, id_) for seq, id_ in self._session.execute(query)]


class SqlWriter(SqlReader):
    """Reads and writes in one transaction."""

    def __init__(self, session: WriteSession) -> None:
        super().__init__(session)
        self._writing = session

    def lock_log(self, model: str) -> LogState:
        """Lock a model's log against other ingest and return where it stands."""
        self._ensure(LogRow, model)
        row = self._session.scalar(select(LogRow).where(LogRow.model == model).with_for_update())
        assert row is not None  # noqa: S101  # it was inserted above
        return _log_from(row)

    def known_events(self, model: str, ids: Sequence[str]) -> set[tuple[str, str]]:
        """Return which (id, role) of these ids are in the log."""
        known: set[tuple[str, str]] = set()
        for some in _chunks(ids):
            query = select(PredictionRow.id, PredictionRow.role).where(
                PredictionRow.model == model, PredictionRow.id.in_(some)
            )
            known.update((id_, role) for id_, role in self._session.execute(query))
        return known

    def answered_ids(self, model: str, ids: Sequence[str]) -> set[str]:
        """Return which of these rows were answered."""
        known: set[str] = set()
        for some in _chunks(ids):
            query = select(PredictionRow.id).where(
                PredictionRow.model == model, PredictionRow.id.in_(some), _is_answer()
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

    def kept_labels(self, model: str, ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the newest revision of each label that is known."""
        kept: dict[str, KeptLabel] = {}
        for some in _chunks(ids):
            query = (
                select(LabelRow.prediction_id, LabelRow.value, LabelRow.revision)
                .where(LabelRow.model == model, LabelRow.prediction_id.in_(some))
                .order_by(LabelRow.revision)
            )
            for id_, value, revision in self._session.execute(query):
                kept[id_] = KeptLabel(id_, json.loads(value), revision)
        return kept

    def append_labels(self, model: str, first_seq: int, labels: Sequence[tuple[KeptLabel, bool]]) -> None:
        """Append (label, whether its prediction is here)."""
        if not labels:
            return
        self._writing.execute(
            insert(LabelRow),
            [
                {
                    "model": model,
                    "seq": first_seq + place,
                    "prediction_id": label.prediction_id,
                    "revision": label.revision,
                    "value": json.dumps(label.value),
                    "joined": joined,
                }
                for place, (label, joined) in enumerate(labels)
            ],
        )

    def join_waiting(self, model: str, ids: Sequence[str], first_seq: int) -> int:
        """Join the waiting labels of rows that have come; they count as received now, from first_seq on."""
        waiting: list[int] = []
        for some in _chunks(ids):
            query = select(LabelRow.seq).where(
                LabelRow.model == model, LabelRow.prediction_id.in_(some), LabelRow.joined.is_(False)
            )
            waiting += self._session.scalars(query)
        for place, seq in enumerate(sorted(waiting)):
            self._writing.execute(
                update(LabelRow)
                .where(LabelRow.model == model, LabelRow.seq == seq)
                .values(seq=first_seq + place, joined=True)
            )
        return len(waiting)

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

    def save_policy(self, policy: Policy) -> None:
        """Keep a policy."""
        values = {
            "spec": policy.spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "spec_digest": policy.spec_digest,
            "deleted": policy.deleted,
        }
        self._writing.merge(PolicyRow(model=policy.model, **values))

    def save_baseline(self, digest: str, document: str) -> None:
        """Keep a baseline."""
        self._writing.merge(BaselineRow(digest=digest, document=document))

    def lock_progress(self, model: str) -> Progress:
        """Lock a model against other processing and return how far it has come."""
        self._ensure(ProgressRow, model, revision=-1)
        row = self._session.scalar(select(ProgressRow).where(ProgressRow.model == model).with_for_update())
        assert row is not None  # noqa: S101  # it was inserted above
        return progress_from(row)

    def save_progress(self, model: str, progress: Progress) -> None:
        """Keep how far processing has come."""
        self._writing.execute(update(ProgressRow).where(ProgressRow.model == model).values(**progress_values(progress)))

    def save_window(self, model: str, window: StoredWindow) -> None:
        """Keep a window."""
        self._writing.merge(WindowRow(model=model, index=window.index, **window_values(window)))

    def count_fresh_label(self, model: str, prediction_seqs: Sequence[int]) -> None:
        """Count labels to the closed windows that their rows are in."""
        if not prediction_seqs:
            return
        first, last = min(prediction_seqs), max(prediction_seqs)
        query = select(WindowRow.index, WindowRow.first_seq, WindowRow.last_seq, WindowRow.fresh_labels).where(
            WindowRow.model == model, WindowRow.last_seq >= first, WindowRow.first_seq <= last
        )
        for index, begin, end, fresh in self._session.execute(query).all():
            inside = sum(1 for seq in prediction_seqs if begin <= seq <= end)
            if inside:
                self._writing.execute(
                    update(WindowRow)
                    .where(WindowRow.model == model, WindowRow.index == index)
                    .values(fresh_labels=fresh + inside)
                )

    def save_episode(self, model: str, episode: Episode) -> None:
        """Keep an episode."""
        values = episode_values(episode)
        row = self._session.get(EpisodeRow, episode.id)
        if row is None:
            number = self._next(select(func.max(EpisodeRow.opened)).where(EpisodeRow.model == model))
            self._writing.add(EpisodeRow(id=episode.id, model=model, opened=number, **values))
        else:
            for name, value in values.items():
                setattr(row, name, value)
        self._writing.flush()

    def save_decision(self, decision: Decided) -> None:
        """Keep a decision."""
        row = self._session.get(DecisionRow, decision.id)
        if row is not None:
            for name, value in decision_values(decision).items():
                setattr(row, name, value)
            return
        number = self._next(select(func.max(DecisionRow.number)).where(DecisionRow.model == decision.model))
        self._writing.add(
            DecisionRow(
                id=decision.id,
                model=decision.model,
                number=number,
                episode=decision.episode,
                at_event_time=decision.at_event_time,
                decision=decision.decision,
                trigger=decision.trigger,
                label_seq=decision.label_seq,
                **decision_values(decision),
            )
        )
        self._writing.flush()

    def forget(self, model: str, *, keep_rows: int) -> int:
        """Delete the oldest processed rows beyond keep_rows, with their labels; return how many."""
        newest = (
            select(PredictionRow.seq)
            .where(PredictionRow.model == model)
            .order_by(PredictionRow.seq.desc())
            .offset(keep_rows)
            .limit(1)
        )
        last = self._session.scalar(newest)
        if last is None:
            return 0
        progress = self.progress(model)
        last = min(last, progress.processed_seq)
        if progress.window is not None and progress.window.first_seq:
            last = min(last, progress.window.first_seq - 1)
        old = and_(PredictionRow.model == model, PredictionRow.seq <= last)
        number = self._session.scalar(select(func.count()).select_from(PredictionRow).where(old)) or 0
        gone = select(PredictionRow.id).where(old)
        self._writing.execute(
            delete(LabelRow)
            .where(LabelRow.model == model, LabelRow.prediction_id.in_(gone))
            .execution_options(synchronize_session=False)
        )
        self._writing.execute(delete(PredictionRow).where(old).execution_options(synchronize_session=False))
        return number

    def _next(self, query: Select[Any]) -> int:
        newest: int | None = self._session.scalar(query)
        return (newest or 0) + 1

    def _ensure(self, table: type[Any], model: str, **values: Any) -> None:
        """Insert a model's row unless it is there; two who try at once both find it."""
        if self._session.get(table, model) is not None:
            return
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        defaults = {
            column.name: column.default.arg
            for column in table.__table__.columns
            if column.default is not None and column.name not in values
        }
        statement = dialect.insert(table).values(model=model, **defaults, **values)
        self._writing.execute(statement.on_conflict_do_nothing())


def _log_from(row: LogRow) -> LogState:
    return LogState(
        seq=row.seq,
        prediction_seq=row.prediction_seq,
        label_seq=row.label_seq,
        requests=row.requests,
        labels=row.labels,
        waiting=row.waiting,
    )


class SqlTransactions:
    """Opens transactions on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Open one that only reads."""
        with self._database.read() as session:
            yield SqlReader(session)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """Open one that commits at its end, or undoes everything when something is raised."""
        with self._database.write() as session:
            yield SqlWriter(session)
