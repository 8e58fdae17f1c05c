"""Who seems to come alone: one turn of the event loop is judged by the one before.

A turn is over when the sockets that had something to say have said it, and nobody has come while they were heard. Where
the turn before brought several, the first of this one waits for its end, so that what comes with it is done together;
else it need not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Crowd"]

_MOST_LOOKS = 8
"""At the sockets again in one turn: those who were there first are not to wait for ever newer ones."""


class Crowd:
    """Those who come in the turns of one event loop."""

    __slots__ = ("_arrived", "_before", "_is_turning", "_looks", "_seen")

    def __init__(self) -> None:
        self._is_turning = False
        self._arrived = 0
        """How many this turn has brought; seen: how many it had at the last look; before: how many the one before."""
        self._seen = 0
        self._before = 0
        self._looks = 0

    def is_alone(self, loop: asyncio.AbstractEventLoop, turned: Callable[[], None]) -> bool:
        """Note that one has come; return whether nobody else seems to come in this turn.

        Args:
            turned: the first one's is called when the turn is over; who comes from then on belongs to the next.
        """
        self._arrived += 1
        if self._is_turning:
            return False
        self._is_turning, self._seen, self._looks = True, 1, 0
        loop.call_soon(self._look, loop, turned)
        return self._before <= 1

    def _look(self, loop: asyncio.AbstractEventLoop, turned: Callable[[], None]) -> None:
        if self._arrived > self._seen and self._looks < _MOST_LOOKS:
            # To hear them took as long as some need to ask again: the loop sees those before it calls this again.
            self._seen, self._looks = self._arrived, self._looks + 1
            loop.call_soon(self._look, loop, turned)
            return
        self._is_turning, self._before, self._arrived = False, self._arrived, 0
        turned()
