"""Give a shadow candidate copies of what the champion answered. Nobody waits for it, and its queue is bounded."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from modelyard_common.clock import Clock

from modelyard_inference.domain.ports import Lane, Observer, PayloadSink
from modelyard_inference.usecases.judge_candidate import JudgeCandidate
from modelyard_inference.usecases.record import Ask, answer_block
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = ["Shadow", "Stopping"]


_MOST_BYTES = 64 * 1024**2
"""What copies hold while they wait: some requests of the largest size, far more than all usual ones together."""


class Stopping(Protocol):
    """Tells that the worker should end."""

    def is_set(self) -> bool:
        """Return whether it should."""


class Shadow:
    """A queue of copies and the worker that empties it.

    Args:
        lane: runs the candidate, so that one that hangs is late instead of holding the worker.
        max_rows: rows that may wait.
        timeout_s: how long one copy may take.
        max_bytes: memory that the values of those rows may take, about: a few rows of long texts take much.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        sink: PayloadSink,
        judge: JudgeCandidate,
        observer: Observer,
        clock: Clock,
        max_rows: int,
        timeout_s: float,
        max_bytes: int = _MOST_BYTES,
    ) -> None:
        self._lane = lane
        self._sink = sink
        self._judge = judge
        self._observer = observer
        self._clock = clock
        self._max_rows = max_rows
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._copies: deque[tuple[Ask, int]] = deque()
        """Each with how many bytes it holds."""
        self._rows = 0
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue."""
        return self._rows

    def offer(self, ask: Ask) -> None:
        """Put a copy in the queue, or drop and count it when there is no room."""
        rows = ask.query.rows.count
        with self._changed:
            if self._rows + rows <= self._max_rows:
                size_bytes = ask.query.rows.held_bytes()
                if self._bytes + size_bytes <= self._max_bytes:
                    self._rows += rows
                    self._bytes += size_bytes
                    self._copies.append((ask, size_bytes))
                    self._changed.notify()
                    return
        self._observer.shadow_dropped(ask.query.model, rows)

    def work(self, stop: Stopping) -> None:
        """Answer copies until told to stop; what waits then is dropped and counted."""
        while not stop.is_set():
            if (ask := self._take(0.25)) is not None:
                self.answer(ask)
        while (ask := self._take(0)) is not None:
            self._observer.shadow_dropped(ask.query.model, ask.query.rows.count)

    def _take(self, timeout_s: float) -> Ask | None:
        with self._changed:
            if not self._copies and timeout_s:
                self._changed.wait(timeout_s)
            if not self._copies:
                return None
            ask, size_bytes = self._copies.popleft()
            self._rows -= ask.query.rows.count
            self._bytes -= size_bytes
            return ask

    def answer(self, ask: Ask) -> None:
        """Have the candidate answer one copy, and log it under the id of the original."""
        candidate, guard = ask.serving.candidate, ask.serving.guard
        if candidate is None or guard is None or guard.tripped:
            return
        started = self._clock.monotonic()
        try:
            bound, answers = self._lane.call(lambda: candidate.answer(ask.query.rows), self._timeout_s)
        except Exception as exc:  # a runtime may raise anything; the candidate is counted out, not the worker
            self._judge.failed(ask, candidate, "shadow", exc, self._clock.monotonic() - started)
            return
        took_s = self._clock.monotonic() - started
        guard.succeeded()
        self._count(ask, candidate, took_s)
        self._sink.append([answer_block(ask, candidate, "shadow", bound, answers, took_s)])

    def _count(self, ask: Ask, candidate: LoadedVersion, took_s: float) -> None:
        self._observer.answered(ask.query.model, candidate.version.number, "shadow", ask.query.rows.count, took_s)
