"""Who waits for an answer of one version: in a turn of the event loop, in its queue, or for a run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field

import msgspec
from modelyard_common.crowd import Crowd

from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.requests import Answer, Role
from modelyard_inference.usecases.record import Ask
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = ["Done", "Leave", "Queue", "Turn", "Waiting"]

Done = Callable[[Answer | Exception], None]
"""Takes an answer, or what was raised in its place."""
Leave = Callable[[], None]
"""Says that nobody waits for an answer any more; ``Done`` is not called then."""


class Turn(msgspec.Struct, frozen=True):
    """One request to one version.

    Attributes:
        deadline: seconds, monotonic.
        logged: its answer is written down.
        alone: it is not laid together with others.
        unheard: told how a run ended in which it was, and whose callers had left: the error, or None. Of those in one
            run only one is: whose fault it is that it failed, is not looked for when nobody waits.
    """

    ask: Ask
    loaded: LoadedVersion
    role: Role
    deadline: float
    logged: bool = True
    alone: bool = False
    unheard: Callable[[Exception | None], None] | None = None


class Waiting(msgspec.Struct, eq=False):
    """A turn in a queue.

    Attributes:
        bound: its rows as the version takes them; None while they are not bound.
        rows: how many it has.
        alone: it is not laid together with others.
        left: nobody waits for it any more, or its answer is there; late: what ends its wait at its deadline.
        begun: it has left the queue for a run.
        future, done: who is answered: a coroutine, or what takes the answer in ``context``, where lines of the log find
            whose they are.
    """

    turn: Turn
    bound: Bound | None
    arrived: float
    rows: int
    alone: bool
    left: bool = False
    late: asyncio.TimerHandle | None = None
    begun: bool = False
    future: asyncio.Future[Answer] | None = None
    done: Done | None = None
    context: Context | None = None

    @property
    def has_hung_up(self) -> bool:
        """Whether its caller has gone before its deadline."""
        return self.future is not None and self.future.cancelled()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for its answer."""
        return self.left or (self.future is not None and self.future.done())


@dataclass(slots=True)
class Queue:
    """Of one version.

    Attributes:
        gathered: what this turn of the loop brought.
        crowd: those who came in it, and in the one before.
        waiting: for a run in a lane; running: how many runs count.
        threads: of the lane that its runs have, those that do not count any more included.
    """

    gathered: deque[Waiting] = field(default_factory=deque)
    crowd: Crowd = field(default_factory=Crowd)
    waiting: deque[Waiting] = field(default_factory=deque)
    running: int = 0
    threads: int = 0
