"""Retention: the oldest rows of the log go, with the labels that speak of them or have waited as long."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, delete, func, select, update

from modelyard_drift.adapters.store.predictions import WritesPredictions
from modelyard_drift.adapters.store.windows import WritesWindows
from modelyard_drift.adapters.tables import LabelRow, LogRow, PredictionRow

__all__ = ["Forgets"]


class Forgets(WritesPredictions, WritesWindows):
    """Deletes what is too old to keep."""

    def forget(self, model: str, *, keep_rows: int) -> int:
        """Delete the oldest processed rows beyond keep_rows, and labels as old as they are; return how many rows."""
        last = self._last_to_go(model, keep_rows)
        if last is None:
            return 0
        self.lock_log(model)
        old = and_(PredictionRow.model == model, PredictionRow.seq <= last)
        number = self._session.scalar(select(func.count()).select_from(PredictionRow).where(old)) or 0
        gone = select(PredictionRow.id).where(old)
        self._delete_labels(LabelRow.model == model, LabelRow.prediction_id.in_(gone))
        self._forget_waiting(model, last)
        self._writing.execute(delete(PredictionRow).where(old).execution_options(synchronize_session=False))
        return number

    def _last_to_go(self, model: str, keep_rows: int) -> int | None:
        """Return the last row to delete; rows that processing or the open window needs stay."""
        newest = (
            select(PredictionRow.seq)
            .where(PredictionRow.model == model)
            .order_by(PredictionRow.seq.desc())
            .offset(keep_rows)
            .limit(1)
        )
        last = self._session.scalar(newest)
        if last is None:
            return None
        progress = self.progress(model)
        last = min(last, progress.processed_seq)
        if progress.window is not None and progress.window.first_seq:
            last = min(last, progress.window.first_seq - 1)
        return last

    def _forget_waiting(self, model: str, last: int) -> None:
        """Delete labels that wait since before the oldest row: else those of rows that never come fill the bound."""
        waiting = and_(LabelRow.model == model, LabelRow.joined.is_(False), LabelRow.seq <= last)
        number = self._session.scalar(select(func.count()).select_from(LabelRow).where(waiting)) or 0
        if number:
            self._delete_labels(waiting)
            self._writing.execute(update(LogRow).where(LogRow.model == model).values(waiting=LogRow.waiting - number))

    def _delete_labels(self, *conditions: ColumnElement[bool]) -> None:
        self._writing.execute(delete(LabelRow).where(*conditions).execution_options(synchronize_session=False))
