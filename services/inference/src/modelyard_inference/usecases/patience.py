"""Wait for a version whose process has ended and is started again: its callers get their answers late, not errors.

They wait on the event loop, where they hold no thread that another model needs, and are bounded in number. What was in
the hands of a process that died is asked once more, and alone: it may be what ends the process, and its neighbours are
not to end with it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
from modelyard_common.clock import Clock

from modelyard_inference.domain.requests import Answer, Away
from modelyard_inference.usecases.batching import Batching, Turn

__all__ = ["Patience"]

_LOOK_S = 0.05
"""Between two looks at whether it is back: far below what a process takes to start."""


@dataclass(slots=True)
class Patience:
    """Asks again.

    Attributes:
        most: requests that wait at a time; who comes when there are as many is told to come back.
    """

    clock: Clock
    most: int
    _waiting: int = field(default=0, init=False)

    async def answer(self, batching: Batching, turn: Turn) -> Answer:
        """Return the answer of one version. Raises what ``Batching.answer`` does; Away when it is not back in time."""
        died = False
        while True:
            try:
                return await batching.answer(turn)
            except Away as exc:
                if exc.began and died:
                    raise
                if exc.began:
                    died, turn = True, msgspec.structs.replace(turn, alone=True)
                if not await self._back(exc, turn.deadline):
                    raise

    async def _back(self, away: Away, deadline: float) -> bool:
        if self._waiting >= self.most:
            return False
        self._waiting += 1
        try:
            while not away.is_back():
                left_s = deadline - self.clock.monotonic()
                if left_s <= 0:
                    return False
                await asyncio.sleep(min(_LOOK_S, left_s))
        finally:
            self._waiting -= 1
        return True
