"""What every room of the store stands on: a session, and the conditions that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelyard_common.db import ReadSession, WriteSession
from sqlalchemy import Select, and_, exists
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from modelyard_drift.adapters.tables import LabelRow, PredictionRow

__all__ = ["Reading", "Writing", "chunks", "is_answer", "newest_label"]


_ASK_AT_ONCE = 500
"""Ids in one IN clause; SQLite takes at most 32,766 parameters, older ones 999."""
_ANSWERS = ("champion", "candidate")


def is_answer() -> Any:
    """Return the condition of a row that the caller was given: never a shadow copy, never a failure."""
    return and_(PredictionRow.role.in_(_ANSWERS), PredictionRow.error.is_(None))


def newest_label(until: int | None = None) -> Any:
    """Return the condition that no later label of the same row (received up to ``until``) replaces this one."""
    later = aliased(LabelRow)
    condition = and_(
        later.model == LabelRow.model,
        later.prediction_id == LabelRow.prediction_id,
        later.revision > LabelRow.revision,
    )
    if until is not None:
        condition = and_(condition, later.seq <= until)
    return ~exists().where(condition)


def chunks(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield ids in parts that one statement can ask for."""
    for start in range(0, len(ids), _ASK_AT_ONCE):
        yield ids[start : start + _ASK_AT_ONCE]


class Reading:
    """Reads in one transaction."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session


class Writing(Reading):
    """Reads and writes in one transaction."""

    def __init__(self, session: WriteSession) -> None:
        super().__init__(session)
        self._writing = session

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
