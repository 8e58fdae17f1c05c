"""Let late labels into the performance of windows that closed before they came.

A window is measured anew when a tenth of its rows got labels or when all have them: not at every label, since each
time reads the whole window. Labels that come later than the label delay are let in whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal

from modelyard_drift.domain.performance import Performance
from modelyard_drift.usecases.close_window import CloseWindow, failing_metrics, measured
from modelyard_drift.usecases.ports import Policy, Progress, StoredWindow, Transactions, Writer
from modelyard_drift.usecases.views import performance_views

__all__ = ["FoldLabels"]

_log = get_logger(__name__)
_SHARE = 0.1


@dataclass(slots=True)
class FoldLabels:
    """One turn takes all models."""

    transactions: Transactions
    close_window: CloseWindow
    chunk_rows: int

    def __call__(self, stop: StopSignal, *, overdue: bool = False) -> None:
        """Count labels to their windows, and measure those that are due; with overdue, also those that got few."""
        with self.transactions.read() as store:
            models = [policy.model for policy in store.policies()]
        for model in models:
            try:
                while not stop.is_set() and self._walk(model):
                    pass
                if overdue:
                    self._measure_overdue(model)
            except ModelyardError:
                raise
            except Exception as exc:  # a model that trips over its own labels keeps no other back
                _log.error("labels.failed", error=exc, model=model)

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
            policy = writer.policy(model)
            if progress.label_cursor != before.label_cursor or policy is None:
                return policy is not None
            writer.count_fresh_label(model, places)
            for window in writer.windows_with_fresh_labels(model):
                if _is_due(window):
                    self._measure(writer, policy, progress, window)
            writer.save_progress(model, replace(progress, label_cursor=last))
        return True

    def _measure_overdue(self, model: str) -> None:
        with self.transactions.read() as store:
            waiting = bool(store.windows_with_fresh_labels(model))
        if not waiting:
            return
        with self.transactions.write() as writer:
            progress = writer.lock_progress(model)
            policy = writer.policy(model)
            if policy is None or progress.watermark is None:
                return
            until = progress.watermark - timedelta(seconds=policy.spec.label_delay_s)
            for window in writer.windows_with_fresh_labels(model):
                if window.view.event_time_until is not None and window.view.event_time_until <= until:
                    self._measure(writer, policy, progress, window)

    def _measure(self, writer: Writer, policy: Policy, progress: Progress, window: StoredWindow) -> None:
        """Measure a window anew, and follow up what that changes for the model in force."""
        performance = measured(writer, policy, window.first_seq, window.last_seq)
        changed = self._measured(policy, window, performance)
        writer.save_window(policy.model, changed)
        if window.view.reference != progress.reference or progress.watermark is None:
            return
        if changed.view.severity == "critical" and window.view.severity != "critical":
            failing = failing_metrics(policy.spec, performance)
            self.close_window.follow_up(writer, policy, changed, failing, progress.watermark)
        self.close_window.end_subsided(writer, policy, progress.watermark)

    @staticmethod
    def _measured(policy: Policy, window: StoredWindow, performance: Sequence[Performance]) -> StoredWindow:
        severity = "critical" if failing_metrics(policy.spec, performance) else window.view.severity
        view = window.view.model_copy(update={"performance": performance_views(performance), "severity": severity})
        rows: Sequence[int] = [entry.rows for entry in performance]
        return replace(window, view=view, labelled=max(rows, default=0), fresh_labels=0)


def _is_due(window: StoredWindow) -> bool:
    complete = window.labelled + window.fresh_labels >= window.rows
    return complete or window.fresh_labels >= window.rows * _SHARE
