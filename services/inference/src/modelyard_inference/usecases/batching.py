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
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from modelyard_bundle.runtimes.base import Predicted
from modelyard_common import context
from modelyard_common.clock import Clock
from modelyard_common.errors import Overloaded

from modelyard_inference.domain.coalescing import Outcome, answer_all, answers_from, is_nobodys, merged, take
from modelyard_inference.domain.ports import Lane, Observer, PayloadSink, Run
from modelyard_inference.domain.records import Block
from modelyard_inference.domain.requests import Answer, Late
from modelyard_inference.usecases.record import answer_block
from modelyard_inference.usecases.serving import LoadedVersion
from modelyard_inference.usecases.waiting import Done, Leave, Queue, Turn, Waiting

__all__ = ["Batching", "Done", "Leave", "Limits", "Turn"]


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
        threads: of the lane that the runs of one version may have, those that no longer count among ``runs`` included:
            a version that hangs on all its inputs leaves other versions theirs. Never fewer than ``runs``.
    """

    rows: int = 1024
    waiting: int = 1024
    runs: int = 1
    patience_s: float = 1.0
    inline_rows: int = 32
    threads: int = 2

    @property
    def most_threads(self) -> int:
        """How many threads of the lane one version may have."""
        return max(self.runs, self.threads)

    @property
    def shared_rows(self) -> int:
        """The same for a runtime that blocks: what it takes to be asked at all is worth sharing by more of them."""
        return max(self.inline_rows, self.rows // 4)


class Batching:
    """Runs requests of all versions.

    Args:
        lane: threads for what may take long.
        inline: quick runtimes run on the event loop.
        counts_first: before an answer leaves, where counts outlive the process; else behind it, where that is sooner.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        sink: PayloadSink,
        observer: Observer,
        clock: Clock,
        limits: Limits,
        inline: bool = True,
        counts_first: bool = False,
    ) -> None:
        self._lane = lane
        self._sink = sink
        self._observer = observer
        self._clock = clock
        self._limits = limits
        self._inline = inline
        self._counts_first = counts_first
        self.inline_rows = limits.inline_rows if inline else 0
        """How many rows of a request a quick runtime answers on the event loop."""
        self._tasks: set[asyncio.Task[None]] = set()

    def soon_rows(self, loaded: LoadedVersion) -> int:
        """How many rows of a request a version answers without a coroutine."""
        return self._limits.shared_rows if loaded.runtime.blocking else self.inline_rows

    async def answer(self, turn: Turn) -> Answer:
        """Return the answer of one version; its records are written when this returns.

        Raises:
            Late: it did not answer in time.
            Overloaded: too much waits for it.
            Invalid: the rows do not fit its signature.
            Exception: whatever the runtime raises.
        """
        now, queue = self._begun(turn)
        rows, loaded = turn.ask.query.rows, turn.loaded
        blocking = loaded.runtime.blocking
        if turn.alone or rows.count > (self._limits.shared_rows if blocking else self._limits.inline_rows):
            return await self._queued(queue, Waiting(turn, None, now, rows.count, alone=True))
        waiting = Waiting(turn, loaded.binder.bind(rows), now, rows.count, alone=False)
        if self._inline and not blocking:
            return await self._soon(queue, waiting)
        return await self._queued(queue, waiting)

    def answer_soon(self, turn: Turn, done: Done) -> Leave | None:
        """Hand over the answer without a coroutine, to no more rows than ``soon_rows``.

        A quick runtime answers within this turn of the event loop. The answer of one that blocks comes later: then this
        returns what lets its caller leave.

        Raises:
            Late: the deadline has passed.
            Overloaded: too much waits for it.
            Invalid: the rows do not fit its signature.
        """
        now, queue = self._begun(turn)
        rows = turn.ask.query.rows
        waiting = Waiting(turn, turn.loaded.binder.bind(rows), now, rows.count, alone=False, done=done)
        if turn.loaded.runtime.blocking:
            return self._line_up(queue, waiting)
        if self._is_alone(queue, waiting):
            ((_, answer),), run = self._deliver([waiting], self._run([waiting]), now)
            if self._counts_first:
                self._observer.ran(run)
                done(answer)
            else:  # behind the answer: its caller has it while this is counted
                done(answer)
                self._observer.ran(run)
        else:
            waiting.context = copy_context()
            queue.gathered.append(waiting)
        return None

    def _line_up(self, queue: Queue, waiting: Waiting) -> Leave:
        """Let one wait for a lane without a coroutine; return what lets it leave."""
        self._refuse_too_many(queue)

        def leave() -> None:
            if not waiting.given_up:
                waiting.left = True
                if waiting.late is not None:
                    waiting.late.cancel()
                if not waiting.begun:
                    queue.waiting.remove(waiting)

        def late() -> None:
            if not waiting.given_up:
                leave()
                _hand_to(waiting, Late("the model did not answer within the deadline"))

        context.trace_in_hand()  # or it would begin in each copy of the context anew
        waiting.context = copy_context()
        waiting.late = asyncio.get_running_loop().call_later(waiting.turn.deadline - waiting.arrived, late)
        queue.waiting.append(waiting)
        self._begin(queue)
        return leave

    def _refuse_too_many(self, queue: Queue) -> None:
        if len(queue.waiting) >= self._limits.waiting:
            raise Overloaded(f"{self._limits.waiting} requests wait for this model already", retry_after_s=1)

    def _begun(self, turn: Turn) -> tuple[float, Queue]:
        """Return the time, and where to wait for this version. Raise Late."""
        now = self._clock.monotonic()
        if turn.deadline <= now:
            raise Late("the deadline of this request has passed")
        queue = turn.loaded.queues.get(self)
        if queue is None:
            queue = turn.loaded.queues[self] = Queue()
        return now, queue

    def _most_rows(self, queue: deque[Waiting]) -> int:
        """Return how many rows the next batch of a queue may have: what its model's manifest says, or the server."""
        return queue[0].turn.ask.serving.routing.most_rows(self._limits.rows) if queue else self._limits.rows

    def _is_alone(self, queue: Queue, waiting: Waiting) -> bool:
        """Return whether nobody else seems to come in this turn of the event loop; at its end the others are run."""
        loop = asyncio.get_running_loop()
        return queue.crowd.is_alone(loop, partial(self._turned, queue, waiting.turn.loaded))

    async def _soon(self, queue: Queue, waiting: Waiting) -> Answer:
        """Return an answer from this turn of the event loop: at once to whoever seems to be alone."""
        if self._is_alone(queue, waiting):
            ((_, outcome),), run = self._deliver([waiting], self._run([waiting]), waiting.arrived)
            self._observer.ran(run)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        waiting.future = asyncio.get_running_loop().create_future()
        queue.gathered.append(waiting)
        return await waiting.future

    def _turned(self, queue: Queue, loaded: LoadedVersion) -> None:
        """Run what this turn of the event loop has brought."""
        if loaded.runtime.blocking:  # since: it has just been put out of memory
            while queue.gathered:
                self._let_queue(queue, queue.gathered.popleft())
            self._begin(queue)
            return
        while batch := take(queue.gathered, self._most_rows(queue.gathered)):
            if there := [waiting for waiting in batch if not waiting.given_up]:
                began = self._clock.monotonic()
                self._give(there, self._run(there), began)

    def _let_queue(self, queue: Queue, waiting: Waiting) -> None:
        """Let one wait for a lane that did not mean to."""
        done = waiting.done
        if done is None:
            queue.waiting.append(waiting)
            return

        async def hand_over() -> None:
            try:
                done(await self._queued(queue, waiting))
            except Exception as exc:
                done(exc)

        waiting.done = None
        self._spawn(hand_over(), "hand over", waiting.context)

    async def _queued(self, queue: Queue, waiting: Waiting) -> Answer:
        """Return an answer from a lane, after those that came before."""
        self._refuse_too_many(queue)
        loop = asyncio.get_running_loop()
        waiting.future = loop.create_future()
        queue.waiting.append(waiting)
        self._begin(queue)
        late = loop.call_later(waiting.turn.deadline - waiting.arrived, _give_up, waiting.future)
        try:
            return await waiting.future
        finally:
            late.cancel()
            if not waiting.begun:
                queue.waiting.remove(waiting)

    def _begin(self, queue: Queue) -> None:
        limits = self._limits
        while queue.running < limits.runs and queue.threads < limits.most_threads:
            if not (batch := take(queue.waiting, self._most_rows(queue.waiting))):
                return
            queue.running += 1
            for waiting in batch:
                waiting.begun = True
            loaded = batch[0].turn.loaded
            self._spawn(
                self._in_lane(queue, batch), f"batch of {batch[0].turn.ask.query.model} {loaded.version.number}"
            )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, context: Context | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _outcomes(self, queue: Queue, batch: list[Waiting], left_s: float) -> Sequence[Outcome]:
        """Return what became of each, without a thread where the runtime can do without one and none fails."""
        until = self._clock.monotonic() + left_s
        loaded = batch[0].turn.loaded
        bounds = [waiting.bound for waiting in batch if waiting.bound is not None]
        begin = getattr(loaded.runtime, "begin", None)
        asked: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        if begin is not None and len(bounds) == len(batch) and begin(merged(bounds), partial(_settle, asked)):
            try:
                async with asyncio.timeout(left_s):
                    predicted = await asked
                return answers_from(loaded.reader, bounds, predicted)
            except TimeoutError as exc:
                raise Late("the model did not answer within the deadline") from exc
            except Exception as exc:
                if len(batch) == 1 or is_nobodys(exc):
                    return [exc] * len(batch)
        queue.threads += 1
        try:
            return await self._lane.run(partial(self._run, batch), until - self._clock.monotonic())
        finally:
            queue.threads -= 1

    async def _in_lane(self, queue: Queue, batch: list[Waiting]) -> None:
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
            outcomes = await self._outcomes(queue, batch, max(left_s, 0.0))
        except Exception as exc:
            outcomes = [exc] * len(batch)
        finally:
            impatient.cancel()
            over()
        _tell_unheard(batch, outcomes)
        self._give(batch, outcomes, began)

    def _give(self, batch: list[Waiting], outcomes: Sequence[Outcome], began: float) -> None:
        """Write down all answers at once, count them, and hand each to whoever still waits for it."""
        given, run = self._deliver(batch, outcomes, began)
        self._observer.ran(run)
        _hand_all(given)

    def _run(self, batch: list[Waiting]) -> Sequence[Outcome]:
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
        return answer_all(loaded.runtime.predict, loaded.reader, bounds, _wanted(batch))

    def _deliver(self, batch: list[Waiting], outcomes: Sequence[Outcome], began: float) -> tuple[list[_Given], Run]:
        """Write down all answers at once, and only then return what to hand to each that still waits, and to count."""
        ended = self._clock.monotonic()
        blocks: list[Block] = []
        given: list[_Given] = []
        first = batch[0].turn
        run = Run(first.ask.query.model, first.loaded.version.number, len(batch), ended - began)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            turn, bound = waiting.turn, waiting.bound
            ask, loaded, count = turn.ask, turn.loaded, waiting.rows
            run.rows += count
            if waiting.given_up:
                continue
            if isinstance(outcome, Exception):
                given.append((waiting, outcome))
                continue
            assert bound is not None  # noqa: S101  # or there would be no answer
            took_s, queued_s = ended - waiting.arrived, began - waiting.arrived
            if turn.logged and ask.query.logged:
                blocks.append(answer_block(ask, loaded, turn.role, bound, outcome, took_s, queue_s=queued_s))
            run.answered(turn.role, count, took_s, queued_s)
            version = loaded.version
            answer = Answer(
                ask.prediction_id,
                ask.query.model,
                version.number,
                version.digest,
                turn.role,
                loaded.signature,
                outcome,
            )
            given.append((waiting, answer))
        if blocks:
            self._sink.append(blocks)
        return given, run


_Given = tuple[Waiting, Answer | Exception]


def _hand_all(given: list[_Given]) -> None:
    for waiting, answer in given:
        if waiting.done is not None and waiting.context is not None:
            waiting.left = True
            if waiting.late is not None:
                waiting.late.cancel()
            _hand_to(waiting, answer)
        elif waiting.future is None:
            continue
        elif isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)


def _tell_unheard(batch: list[Waiting], outcomes: Sequence[Outcome]) -> None:
    """Tell one whose caller has gone how the run ended."""
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.turn.unheard is not None and waiting.has_hung_up:
            waiting.turn.unheard(outcome if isinstance(outcome, Exception) else None)
            return


def _hand_to(waiting: Waiting, answer: Answer | Exception) -> None:
    if waiting.done is not None and waiting.context is not None:
        waiting.context.run(waiting.done, answer)


def _give_up(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(Late("the model did not answer within the deadline"))


def _settle(asked: asyncio.Future[Predicted], found: Predicted | Exception) -> None:
    if asked.done():  # all have given up
        return
    if isinstance(found, Exception):
        asked.set_exception(found)
    else:
        asked.set_result(found)


def _wanted(batch: list[Waiting]) -> Callable[[], bool]:
    return lambda: not all(waiting.given_up for waiting in batch)
