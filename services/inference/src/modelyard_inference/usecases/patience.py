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
from modelyard_inference.usecases.batching import Batching, Done, Leave, Turn

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
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def answer(self, batching: Batching, turn: Turn) -> Answer:
        """Return the answer of one version. Raises what ``Batching.answer`` does; Away when it is not back in time."""
        try:
            return await batching.answer(turn)
        except Away as exc:
            away = exc
        return await self._again(batching, turn, away)

    def answer_soon(self, batching: Batching, turn: Turn, done: Done) -> Leave | None:
        """Hand over the same without a coroutine while it is not away. Raises what ``Batching.answer_soon`` does."""
        again: asyncio.Task[None] | None = None

        def told(answer: Answer | Exception) -> None:
            nonlocal again
            if isinstance(answer, Away):
                again = asyncio.get_running_loop().create_task(self._later(batching, turn, answer, done), name="away")
                self._tasks.add(again)
                again.add_done_callback(self._tasks.discard)
            else:
                done(answer)

        leave = batching.answer_soon(turn, told)

        def left() -> None:
            if leave is not None:
                leave()
            if again is not None:
                again.cancel()

        return left if leave is not None else None

    async def _later(self, batching: Batching, turn: Turn, away: Away, done: Done) -> None:
        answer: Answer | Exception
        try:
            answer = await self._again(batching, turn, away)
        except Exception as exc:
            answer = exc
        done(answer)

    async def _again(self, batching: Batching, turn: Turn, away: Away) -> Answer:
        """Return the answer of a version that was found away."""
        died = False
        while True:
            if away.began and died:
                raise away
            if away.began:
                died, turn = True, msgspec.structs.replace(turn, alone=True)
            if not await self._back(away, turn.deadline):
                raise away
            try:
                return await batching.answer(turn)
            except Away as exc:
                away = exc

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
