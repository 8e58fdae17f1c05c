"""Where blocks lie that this process has written and drift does not have: they are sent without a look at any of them.

A run is what was written in one piece, or in some small ones. Of what another process wrote there are none, and that is
read block by block.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from modelyard_inference.adapters.spool_positions import Position

__all__ = ["Run", "Runs"]

_ROWS = 250
_BYTES = 64 * 1024
"""A run grows no further, so that several fill what is sent at a time nearly up."""


@dataclass(slots=True)
class Run:
    """Whole frames, from a place in a file to another, and how many rows they have."""

    segment: int
    start: int
    end: int
    rows: int


class Runs:
    """The runs of one spool, in order. Not thread safe."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._grows = False

    def __len__(self) -> int:
        return len(self._runs)

    def wrote(self, segment: int, start: int, size: int, rows: int) -> None:
        """Remember what was written."""
        if self._grows:
            last = self._runs[-1]
            if (
                last.end == start
                and last.segment == segment
                and last.rows + rows <= _ROWS
                and start + size - last.start <= _BYTES
            ):
                last.end += size
                last.rows += rows
                return
        self._runs.append(Run(segment, start, start + size, rows))
        self._grows = True

    def at(self, position: Position, most_rows: int, most_bytes: int) -> Run | None:
        """Return what lies at a place as one run; None when that is not known, or the first is too large already."""
        self.forget(position)
        if not self._runs or self._runs[0].start != position.offset or self._runs[0].segment != position.segment:
            return None
        whole = Run(position.segment, position.offset, position.offset, 0)
        for run in self._runs:
            if run.segment != whole.segment or run.start != whole.end:
                break
            if whole.rows + run.rows > most_rows or run.end - whole.start > most_bytes:
                break
            whole.end = run.end
            whole.rows += run.rows
        self._grows = False  # what was handed out has to end where a run ends
        return whole if whole.rows else None

    def next_start(self, position: Position) -> int | None:
        """Return where the next run of a file begins that does not begin before a place; None when there is none."""
        self.forget(position)
        return self._runs[0].start if self._runs and self._runs[0].segment == position.segment else None

    def forget(self, position: Position) -> None:
        """Forget what begins before a place."""
        while self._runs and (self._runs[0].segment, self._runs[0].start) < (position.segment, position.offset):
            self._runs.popleft()
        self._grows = self._grows and bool(self._runs)
