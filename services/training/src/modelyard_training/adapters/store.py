"""The store over SQLAlchemy: one object for one session; SQLite and PostgreSQL run the same tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from modelyard_common.db import Database, ReadSession, WriteSession
from sqlalchemy import delete, func, select, tuple_

from modelyard_training.adapters.database import ClaimRow, DatasetRow, LockRow, ModelRow, RunRow, ScheduleRow
from modelyard_training.adapters.records import (
    dataset_from,
    dataset_values,
    model_from,
    model_values,
    run_from,
    run_values,
    schedule_from,
    schedule_values,
)
from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.ports import Claim, KnownModel, Reader, Store
from modelyard_training.domain.runs import FINAL, Run, State
from modelyard_training.domain.schedules import Schedule

__all__ = ["QUEUE_LOCK", "SqlReader", "SqlStore", "SqlTransactions"]

QUEUE_LOCK = "queue"


class SqlReader:
    """Reads in one transaction."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    def run(self, run_id: str) -> Run | None:
        """Return a run."""
        row = self._session.get(RunRow, run_id)
        return run_from(row) if row is not None else None

    def runs(
        self, *, model: str | None = None, state: State | None = None, before: str | None = None, limit: int = 100
    ) -> Sequence[Run]:
        """Return runs, newest first, older than the id ``before``."""
        query = select(RunRow).order_by(RunRow.id.desc()).limit(limit)
        if model is not None:
            query = query.where(RunRow.model == model)
        if state is not None:
            query = query.where(RunRow.state == str(state))
        if before is not None:
            query = query.where(RunRow.id < before)
        return [run_from(row) for row in self._session.scalars(query)]

    def unfinished(self) -> Sequence[Run]:
        """Return runs that have begun and whose process is not known to be gone, oldest first."""
        query = select(RunRow).where(RunRow.settled.is_(False), RunRow.state != str(State.PENDING)).order_by(RunRow.id)
        return [run_from(row) for row in self._session.scalars(query)]

    def waiting(self, limit: int) -> Sequence[Run]:
        """Return pending runs, oldest first."""
        query = select(RunRow).where(RunRow.state == str(State.PENDING)).order_by(RunRow.id).limit(limit)
        return [run_from(row) for row in self._session.scalars(query)]

    def count(self, *states: State) -> int:
        """Return how many runs are in these states."""
        query = select(func.count()).select_from(RunRow).where(RunRow.state.in_([str(state) for state in states]))
        return self._session.scalar(query) or 0

    def counts(self) -> dict[State, int]:
        """Return how many runs are in each state that has any."""
        query = select(RunRow.state, func.count()).group_by(RunRow.state)
        return {State(state): number for state, number in self._session.execute(query)}

    def last_successes(self) -> dict[str, datetime]:
        """Return when a run of each model last succeeded, for the models that have one."""
        query = select(RunRow.model, func.max(RunRow.ended)).where(RunRow.state == str(State.SUCCEEDED))
        return {model: ended for model, ended in self._session.execute(query.group_by(RunRow.model)) if ended}

    def live_runs(self, model: str) -> Sequence[Run]:
        """Return a model's runs that are not over."""
        final = [str(state) for state in FINAL]
        query = select(RunRow).where(RunRow.model == model, RunRow.state.not_in(final)).order_by(RunRow.id)
        return [run_from(row) for row in self._session.scalars(query)]

    def claimed(self, key: str) -> tuple[Run, str] | None:
        """Return the run that was asked for under a key, with the digest of that request."""
        claim = self._session.get(ClaimRow, key)
        if claim is None:
            return None
        return run_from(self._session.get_one(RunRow, claim.run)), claim.request_digest

    def dataset(self, digest: str) -> Dataset | None:
        """Return a dataset version."""
        row = self._session.get(DatasetRow, digest)
        return dataset_from(row) if row is not None else None

    def datasets(self, *, before: str | None = None, limit: int = 100) -> Sequence[Dataset]:
        """Return dataset versions, newest first, older than the version with the digest ``before``."""
        query = select(DatasetRow).order_by(DatasetRow.created.desc(), DatasetRow.digest.desc()).limit(limit)
        last = self._session.get(DatasetRow, before) if before is not None else None
        if last is not None:
            query = query.where(tuple_(DatasetRow.created, DatasetRow.digest) < tuple_(last.created, last.digest))
        return [dataset_from(row) for row in self._session.scalars(query)]

    def models(self) -> Sequence[KnownModel]:
        """Return the models as they were last seen, deleted ones included."""
        return [model_from(row) for row in self._session.scalars(select(ModelRow).order_by(ModelRow.name))]

    def schedules(self, model: str | None = None) -> Sequence[Schedule]:
        """Return the cron triggers, by model and line."""
        query = select(ScheduleRow).order_by(ScheduleRow.model, ScheduleRow.cron)
        if model is not None:
            query = query.where(ScheduleRow.model == model)
        return [schedule_from(row) for row in self._session.scalars(query)]


class SqlStore(SqlReader):
    """Reads and writes in one transaction."""

    def __init__(self, session: WriteSession) -> None:
        super().__init__(session)
        self._writing = session

    def lock_queue(self) -> None:
        """Keep other transactions from adding or beginning runs until this one ends."""
        self._writing.execute(select(LockRow).where(LockRow.name == QUEUE_LOCK).with_for_update())

    def lock_run(self, run_id: str) -> Run | None:
        """Return a run and keep other writers of it out until the transaction ends."""
        row = self._writing.get(RunRow, run_id, with_for_update=True, populate_existing=True)
        return run_from(row) if row is not None else None

    def add_run(self, run: Run, claims: Sequence[Claim]) -> None:
        """Insert a run together with the keys under which it was asked for."""
        self._writing.add(RunRow(**run_values(run)))
        self._writing.flush()
        for claim in claims:
            self._writing.add(ClaimRow(key=claim.key, run=run.id, request_digest=claim.request_digest))
        self._writing.flush()

    def save_run(self, run: Run) -> None:
        """Update a run."""
        row = self._writing.get_one(RunRow, run.id)
        for name, value in run_values(run).items():
            setattr(row, name, value)
        self._writing.flush()

    def release(self, model: str, *, only_unsuccessful: bool) -> None:
        """Give up the claims of a model's runs for its specs, so that the same spec may be trained again."""
        runs = select(RunRow.id).where(RunRow.model == model)
        if only_unsuccessful:
            runs = runs.where(RunRow.state != str(State.SUCCEEDED))
        self._writing.execute(
            delete(ClaimRow).where(ClaimRow.key.startswith(f"spec/{model}/", autoescape=True), ClaimRow.run.in_(runs))
        )

    def add_dataset(self, dataset: Dataset) -> Dataset:
        """Insert a dataset version and return it; the one that is there already stays and is returned."""
        self.lock_queue()
        known = self.dataset(dataset.digest)
        if known is not None:
            return known
        self._writing.add(DatasetRow(**dataset_values(dataset)))
        self._writing.flush()
        return dataset

    def save_model(self, model: KnownModel) -> None:
        """Insert or update a model as it was seen."""
        self._writing.merge(ModelRow(**model_values(model)))
        self._writing.flush()

    def save_schedule(self, schedule: Schedule) -> None:
        """Insert or update a cron trigger."""
        self._writing.merge(ScheduleRow(**schedule_values(schedule)))
        self._writing.flush()

    def lock_schedule(self, model: str, cron: str) -> Schedule | None:
        """Return a cron trigger and keep other writers of it out until the transaction ends."""
        row = self._writing.get(ScheduleRow, (model, cron), with_for_update=True, populate_existing=True)
        return schedule_from(row) if row is not None else None

    def drop_schedule(self, model: str, cron: str) -> None:
        """Remove a cron trigger."""
        self._writing.execute(delete(ScheduleRow).where(ScheduleRow.model == model, ScheduleRow.cron == cron))


class SqlTransactions:
    """Opens transactions on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Open a transaction that only reads."""
        with self._database.read() as session:
            yield SqlReader(session)

    @contextmanager
    def write(self) -> Iterator[Store]:
        """Open a transaction that may change things."""
        with self._database.write() as session:
            yield SqlStore(session)
