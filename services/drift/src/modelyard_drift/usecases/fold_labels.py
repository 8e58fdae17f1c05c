"""Let late labels into the performance of windows that closed before they came.

A window is measured anew when a tenth of its rows got labels, when all have them, or when nothing else is to do:
not at every label, since each time reads the whole window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelyard_common.tasks import StopSignal

from modelyard_drift.usecases.close_window import CloseWindow, failing_metrics, measured
from modelyard_drift.usecases.ports import Policy, StoredWindow, Transactions, Writer
from modelyard_drift.usecases.views import performance_views

__all__ = ["FoldLabels"]

_SHARE = 0.1


@dataclass(slots=True)
class FoldLabels:
    """One turn takes all models."""

    transactions: Transactions
    close_window: CloseWindow
    chunk_rows: int

    def __call__(self, stop: StopSignal, *, idle: bool = False) -> None:
        """Count labels to their windows, and measure those that are due; with idle, all that got any."""
        with self.transactions.read() as store:
            models = [policy.model for policy in store.policies()]
        for model in models:
            while not stop.is_set() and self._walk(model):
                pass
            self._measure(model, idle=idle)

    def _walk(self, model: str) -> bool:
        """Count one chunk of labels to the windows of their rows; return whether there were any."""
        with self.transactions.read() as store:
            before = store.progress(model)
            log = store.log(model)
            if log is None or before.label_cursor >= log.label_seq:
                return False
            last, places = store.label_places(model, after=before.label_cursor, limit=self.chunk_rows)
            # Rows beyond the cursor of processing are in no window yet; the window that will hold them reads labels.
            if last == before.label_cursor:
                return False
        with self.transactions.write() as writer:
            progress = writer.lock_progress(model)
            if progress.label_cursor != before.label_cursor:
                return True
            writer.count_fresh_label(model, places)
            writer.save_progress(model, replace(progress, label_cursor=last))
        return True

    def _measure(self, model: str, *, idle: bool) -> None:
        with self.transactions.read() as store:
            due = [window for window in store.windows_with_fresh_labels(model) if idle or _is_due(window)]
        for window in due:
            with self.transactions.write() as writer:
                progress = writer.lock_progress(model)
                policy = writer.policy(model)
                stored = writer.window(model, window.index)
                if policy is None or stored is None:
                    continue
                changed = self._measured(writer, policy, stored)
                writer.save_window(model, changed)
                newly = changed.view.severity == "critical" and stored.view.severity != "critical"
                if newly and stored.view.reference == progress.reference and progress.watermark is not None:
                    failing = failing_metrics(policy.spec, measured(writer, policy, stored.first_seq, stored.last_seq))
                    self.close_window.follow_up(writer, policy, changed, failing, progress.watermark)

    @staticmethod
    def _measured(writer: Writer, policy: Policy, window: StoredWindow) -> StoredWindow:
        performance = measured(writer, policy, window.first_seq, window.last_seq)
        severity = "critical" if failing_metrics(policy.spec, performance) else window.view.severity
        view = window.view.model_copy(update={"performance": performance_views(performance), "severity": severity})
        rows: Sequence[int] = [entry.rows for entry in performance]
        return replace(window, view=view, labelled=max(rows, default=0), fresh_labels=0)


def _is_due(window: StoredWindow) -> bool:
    complete = window.labelled + window.fresh_labels >= window.rows
    return complete or window.fresh_labels >= window.rows * _SHARE
