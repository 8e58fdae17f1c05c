"""No-wait batching: whoever comes alone is answered at once; what queued meanwhile runs as one batch.

A quick runtime runs on the event loop, and what arrives in one turn of the loop is one batch: a turn is over when the
sockets that had something to say have said it, so nobody waits for anybody who is not there yet. A runtime that blocks
runs in a lane of threads; while it is busy requests queue, and when it is free, all that fit run together. Each version
has queues of its own. Requests are bound to its signature before they are laid together, and one that its caller gave
up leaves the queue before it runs.

All of it happens on the event loop, save the runs of a lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from modelyard_common.clock import Clock
from modelyard_common.errors import Overloaded

from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.coalescing import Outcome, answer_all, take
from modelyard_inference.domain.ports import Lane, Observer, PayloadSink
from modelyard_inference.domain.records import Block
from modelyard_inference.domain.requests import Answer, Late, Role
from modelyard_inference.usecases.record import Ask, answer_block
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = ["Batching", "Limits", "Turn"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch, and a queue, may hold.

    Attributes:
        rows: of one batch; one request may have more by itself. 1: requests are never laid together.
        waiting: requests in the queue of one version.
        runs: batches of one version that run at once.
        patience_s: a run that takes longer no longer counts among those, so that one input on which a model hangs
            holds up the others for this long and not until its deadline.
        inline_rows: a request with more rows is bound in a thread, and runs alone.
    """

    rows: int = 1024
    waiting: int = 1024
    runs: int = 1
    patience_s: float = 1.0
    inline_rows: int = 32


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to one version.

    Attributes:
        deadline: seconds, monotonic.
        logged: its answer is written down.
    """

    ask: Ask
    loaded: LoadedVersion
    role: Role
    deadline: float
    logged: bool = True


@dataclass(eq=False, slots=True)
class _Waiting:
    """A turn in a queue."""

    turn: Turn
    bound: Bound | None
    arrived: float
    future: asyncio.Future[Answer] | None = None

    @property
    def rows(self) -> int:
        return self.turn.ask.query.rows.count

    @property
    def alone(self) -> bool:
        return self.bound is None

    @property
    def given_up(self) -> bool:
        return self.future is not None and self.future.done()


@dataclass(slots=True)
class _Queue:
    """Of one version.

    Attributes:
        gathered: what this turn of the loop brought.
        arrived: how many requests it brought; crowd: how many the turn before.
        waiting: for a run in a lane; running: how many runs count.
    """

    gathered: deque[_Waiting] = field(default_factory=deque)
    turning: bool = False
    arrived: int = 0
    crowd: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)
    running: int = 0


class Batching:
    """Runs requests of all versions.

    Args:
        lane: threads for what may take long.
        inline: quick runtimes run on the event loop.
    """

    def __init__(
        self, *, lane: Lane, sink: PayloadSink, observer: Observer, clock: Clock, limits: Limits, inline: bool = True
    ) -> None:
        self._lane = lane
        self._sink = sink
        self._observer = observer
        self._clock = clock
        self._limits = limits
        self._inline = inline
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, turn: Turn) -> Answer:
        """Return the answer of one version; its records are written when this returns.

        Raises:
            Late: it did not answer in time.
            Overloaded: too much waits for it.
            Invalid: the rows do not fit its signature.
            Exception: whatever the runtime raises.
        """
        now = self._clock.monotonic()
        if turn.deadline <= now:
            raise Late("the deadline of this request has passed")
        rows, loaded = turn.ask.query.rows, turn.loaded
        queue = loaded.queues.get(self)
        if queue is None:
            queue = loaded.queues[self] = _Queue()
        if rows.count > self._limits.inline_rows:
            return await self._queued(queue, _Waiting(turn, None, now))
        waiting = _Waiting(turn, loaded.binder.bind(rows), now)
        if self._inline and not loaded.runtime.blocking:
            return await self._soon(queue, waiting)
        return await self._queued(queue, waiting)

    async def _soon(self, queue: _Queue, waiting: _Waiting) -> Answer:
        """Return an answer from this turn of the event loop: at once to whoever seems to be alone."""
        loop = asyncio.get_running_loop()
        queue.arrived += 1
        if not queue.turning:
            queue.turning = True
            loop.call_soon(self._turned, queue, waiting.turn.loaded)
            if queue.crowd <= 1:
                (outcome,) = self._deliver([waiting], self._run([waiting]), waiting.arrived)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        waiting.future = loop.create_future()
        queue.gathered.append(waiting)
        return await waiting.future

    def _turned(self, queue: _Queue, loaded: LoadedVersion) -> None:
        """Run what this turn of the event loop has brought."""
        queue.turning, queue.crowd, queue.arrived = False, queue.arrived, 0
        if loaded.runtime.blocking:  # since: it has just been put out of memory
            queue.waiting.extend(queue.gathered)
            queue.gathered.clear()
            self._begin(queue)
            return
        while batch := take(queue.gathered, self._limits.rows):
            if there := [waiting for waiting in batch if not waiting.given_up]:
                began = self._clock.monotonic()
                self._deliver(there, self._run(there), began)

    async def _queued(self, queue: _Queue, waiting: _Waiting) -> Answer:
        """Return an answer from a lane, after those that came before."""
        if len(queue.waiting) >= self._limits.waiting:
            raise Overloaded(f"{self._limits.waiting} requests wait for this model already", retry_after_s=1)
        waiting.future = asyncio.get_running_loop().create_future()
        queue.waiting.append(waiting)
        self._begin(queue)
        try:
            async with asyncio.timeout(waiting.turn.deadline - waiting.arrived):
                return await waiting.future
        except TimeoutError as exc:
            raise Late("the model did not answer within the deadline") from exc
        finally:
            if waiting.given_up:
                with suppress(ValueError):  # it is in a run
                    queue.waiting.remove(waiting)

    def _begin(self, queue: _Queue) -> None:
        while queue.running < self._limits.runs and (batch := take(queue.waiting, self._limits.rows)):
            queue.running += 1
            loaded = batch[0].turn.loaded
            task = asyncio.get_running_loop().create_task(
                self._in_lane(queue, batch), name=f"batch of {batch[0].turn.ask.query.model} {loaded.version.number}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _in_lane(self, queue: _Queue, batch: list[_Waiting]) -> None:
        """Run one batch in the lane, and begin the next when it is over, or takes too long."""
        counted = True

        def over() -> None:
            nonlocal counted
            if counted:
                counted = False
                queue.running -= 1
                self._begin(queue)

        impatient = asyncio.get_running_loop().call_later(self._limits.patience_s, over)
        began = self._clock.monotonic()
        try:
            left_s = max(waiting.turn.deadline for waiting in batch) - began
            outcomes: Sequence[Outcome] = await self._lane.run(partial(self._run, batch), max(left_s, 0.0))
        except Exception as exc:
            outcomes = [exc] * len(batch)
        finally:
            impatient.cancel()
            over()
        self._deliver(batch, outcomes, began)

    def _run(self, batch: list[_Waiting]) -> Sequence[Outcome]:
        """Return what became of each; may run in a thread."""
        loaded = batch[0].turn.loaded
        try:
            bounds = [
                waiting.bound if waiting.bound is not None else loaded.binder.bind(waiting.turn.ask.query.rows)
                for waiting in batch
            ]
        except Exception as exc:  # of the only one that is not bound yet
            return [exc] * len(batch)
        for waiting, bound in zip(batch, bounds, strict=True):
            waiting.bound = bound
        return answer_all(loaded.runtime.predict, loaded.signature, bounds, _wanted(batch))

    def _deliver(self, batch: list[_Waiting], outcomes: Sequence[Outcome], began: float) -> list[Answer | Exception]:
        """Write down all answers at once, and only then give them to those who still wait."""
        ended = self._clock.monotonic()
        blocks: list[Block] = []
        given: list[tuple[_Waiting, Answer | Exception]] = []
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.given_up:
                continue
            if isinstance(outcome, Exception):
                given.append((waiting, outcome))
                continue
            turn, bound = waiting.turn, waiting.bound
            assert bound is not None  # noqa: S101  # or there would be no answer
            ask, loaded, took_s = turn.ask, turn.loaded, ended - waiting.arrived
            if turn.logged and ask.query.logged:
                blocks.append(
                    answer_block(ask, loaded, turn.role, bound, outcome, took_s, queue_s=began - waiting.arrived)
                )
            version = loaded.version
            self._observer.answered(ask.query.model, version.number, turn.role, waiting.rows, took_s)
            self._observer.stage(ask.query.model, "queue", began - waiting.arrived)
            self._observer.stage(ask.query.model, "predict", ended - began)
            given.append(
                (
                    waiting,
                    Answer(
                        ask.prediction_id,
                        ask.query.model,
                        version.number,
                        version.digest,
                        turn.role,
                        loaded.signature,
                        outcome,
                    ),
                )
            )
        if blocks:
            self._sink.append(blocks)
        self._observer.batch(batch[0].turn.ask.query.model, len(batch), sum(waiting.rows for waiting in batch))
        for waiting, answer in given:
            if waiting.future is None:
                continue
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)
        return [answer for _, answer in given]


def _wanted(batch: list[_Waiting]) -> Callable[[], bool]:
    return lambda: not all(waiting.given_up for waiting in batch)
