"""How far processing has come, and the windows that it closed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update

from modelyard_drift.adapters.records import progress_from, progress_values, window_from, window_values
from modelyard_drift.adapters.store.session import Reading, Writing
from modelyard_drift.adapters.tables import ProgressRow, WindowRow
from modelyard_drift.usecases.ports import Progress, StoredWindow

__all__ = ["ReadsWindows", "WritesWindows"]


class ReadsWindows(Reading):
    """Reads progress and windows."""

    def progress(self, model: str) -> Progress:
        """Return how far processing has come."""
        row = self._session.get(ProgressRow, model)
        return progress_from(row) if row is not None else Progress()

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


class WritesWindows(ReadsWindows, Writing):
    """Keeps progress and windows."""

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
