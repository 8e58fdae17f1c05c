"""Keeps an event loop from falling asleep right after an answer, where the next request tends to come at once.

A caller that asks one thing after the other finds a server that went to sleep meanwhile: the processor is woken, and
what it had in its caches is gone, which together take as long as a small model. So the loop spins before it blocks,
for as long as a quick caller takes to ask again. How often that is worth it is learned, as adaptive locks do it
(Karlin, Li, Manasse, Owicki, "Empirical studies of competitive spinning for a shared-memory multiprocessor", SOSP
1991): where nothing comes in that time it is soon tried but now and then, and a server of callers that take their time
sleeps as ever. Where several were answered in one turn the loop does not spin: while it falls asleep and wakes the next
ones gather, and are one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Awake"]

_MISSES = 4
"""In a row; from then on the moment after most answers is slept through."""
_MOST_SLEPT = 256


class Awake:
    """What one event loop does after it has answered.

    Args:
        window_s: how long it looks for the next request before it sleeps; 0: not at all.
        clock: seconds that only grow.
    """

    def __init__(self, window_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._window_s = window_s
        self._clock = clock
        self._until = 0.0
        self._is_looking = False
        self._answers = 0
        """Since it looked last."""
        self._has_come = False
        """A request has, since it looked last."""
        self._misses = 0
        self._slept = 0 if window_s > 0 else -1
        """Answers after which it sleeps at once; -1: all."""

    def asked(self) -> None:
        """Note that a request has come."""
        self._has_come = True

    def answered(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for the next request for a moment, if that is worth it."""
        if self._slept:
            self._slept -= self._slept > 0
            return
        self._answers += 1
        self._until = self._clock() + self._window_s
        if not self._is_looking:
            self._is_looking, self._has_come = True, False
            loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        answers, self._answers = self._answers, 0
        if self._has_come:
            self._misses = 0
        if answers > 1 or (self._has_come and not answers):
            self._is_looking = False
        elif answers or self._clock() < self._until:
            # Whoever calls soon keeps the loop from waiting: it polls its sockets, and comes back.
            loop.call_soon(self._look, loop)
            self._has_come = False
        else:
            self._is_looking = False
            self._misses += 1
            if self._misses >= _MISSES:
                self._slept = min(2**self._misses, _MOST_SLEPT)
