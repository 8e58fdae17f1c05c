"""Look at what drift knows: status, windows, episodes, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.drift_v1 import DecisionView, DriftStatus, EpisodeView, WindowView
from modelyard_contracts.problem import FieldError

from modelyard_drift.usecases.ports import LogState, Reader, StoredWindow, Transactions
from modelyard_drift.usecases.views import decision_view, episode_view, open_view

__all__ = ["Browse", "window_index"]

_RECENT_WINDOWS = 5
"""Among so many the status looks for one that could be scored."""


def window_index(window: str) -> int:
    """Return the number of a window id. Raise Invalid when it is none."""
    if window.startswith("w") and window[1:].isdecimal() and len(window) <= 10:
        return int(window[1:])
    error = FieldError(path="window", message="must be the id of a window, for example w0")
    raise Invalid("this is not the id of a window", errors=(error,))


@dataclass(frozen=True, slots=True)
class Browse:
    """Reads; never writes.

    Attributes:
        notes: model to what keeps its processing back.
    """

    transactions: Transactions
    notes: Mapping[str, str]

    def status(self, model: str) -> DriftStatus:
        """Return where drift stands for a model. Raise NotFound when it knows nothing of it."""
        with self.transactions.read() as store:
            log = self._known(store, model)
            progress = store.progress(model)
            recent = store.windows(model, before=None, limit=_RECENT_WINDOWS)
            commands = len(store.command_times(model))
            episodes = [
                episode_view(model, episode, store.last_decision(episode.id)) for episode in store.open_episodes(model)
            ]
            pending = len(store.pending(model))
        last = recent[0] if recent else None
        scored = next((window for window in recent if window.view.state == "scored"), None)
        return DriftStatus(
            model=model,
            reference=progress.reference,
            requests=log.requests,
            ingest_seq=log.prediction_seq,
            processed_seq=progress.processed_seq,
            label_seq=log.label_seq,
            folded_label_seq=progress.label_cursor,
            labels=log.labels,
            labels_waiting=log.waiting,
            labels_missing=progress.labels_missing,
            watermark=progress.watermark,
            severity=scored.view.severity if scored else "unknown",
            open_window=open_view(model, progress.window) if progress.window else None,
            last_window=last.view if last else None,
            open_episodes=tuple(episodes),
            commands=commands,
            pending_commands=pending,
            performance=last.view.performance if last else (),
            note=self.notes.get(model, ""),
        )

    def windows(self, model: str, *, before: int | None, limit: int) -> list[WindowView]:
        """Return closed windows, newest first."""
        with self.transactions.read() as store:
            self._known(store, model)
            return [window.view for window in store.windows(model, before=before, limit=limit)]

    def window(self, model: str, window: str) -> StoredWindow:
        """Return a closed window. Raise NotFound when there is none."""
        index = window_index(window)
        with self.transactions.read() as store:
            found = store.window(model, index)
        if found is None:
            raise NotFound(f"model {model!r} has no closed window {window}")
        return found

    def episodes(self, model: str, *, before: int | None, limit: int) -> list[tuple[int, EpisodeView]]:
        """Return (number, episode), newest first."""
        with self.transactions.read() as store:
            self._known(store, model)
            return [
                (number, episode_view(model, episode, store.last_decision(episode.id)))
                for number, episode in store.episodes(model, before=before, limit=limit)
            ]

    def decisions(self, model: str, *, before: int | None, limit: int) -> list[tuple[int, DecisionView]]:
        """Return (number, decision), newest first."""
        with self.transactions.read() as store:
            self._known(store, model)
            return [
                (number, decision_view(decision))
                for number, decision in store.decisions(model, before=before, limit=limit)
            ]

    def prediction_ids(self, model: str, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return (seq, id) of the answers in the log, in the order of ingest."""
        with self.transactions.read() as store:
            self._known(store, model)
            return list(store.prediction_ids(model, after=after, limit=limit))

    @staticmethod
    def _known(store: Reader, model: str) -> LogState:
        log = store.log(model)
        if log is not None:
            return log
        if store.policy(model) is None:
            raise NotFound(f"drift knows no model {model!r}")
        return LogState()
