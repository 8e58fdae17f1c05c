"""Threads with a deadline. Whoever waits stops waiting at the deadline, whatever the work does.

A thread whose work is late is replaced, since Python cannot end it; so one input on which a model hangs does not
close the lane. The number of replacements in being is bounded: after that, work waits and is late itself.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from modelyard_common.errors import Overloaded
from modelyard_common.logs import get_logger

from modelyard_inference.domain.requests import Late

__all__ = ["ThreadLane"]

T = TypeVar("T")

_log = get_logger(__name__)
_MOST_LOST = 8
"""Threads that may hang at once; each holds a stack and whatever its model holds. More would only hang as well."""


class _Job:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.lost = False


class ThreadLane:
    """A bounded queue and its threads. They are daemons: a model that hangs does not keep the process.

    A thread begins when there is work for it: a server of quick models only needs none.

    Args:
        threads: how many work at once.
        depth: how many jobs may wait.
        niceness: how much the threads stand back for others when cores are short, 0 to 19.
        most_lost: how many late threads are replaced at a time; 0 where work always ends, so that no more of it runs.
    """

    def __init__(
        self, name: str, *, threads: int, depth: int = 1024, niceness: int = 0, most_lost: int = _MOST_LOST
    ) -> None:
        self.name = name
        self._depth = depth
        self._niceness = niceness
        self._most_lost = most_lost
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = threads
        self._begun = 0
        self._lost = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return self._jobs.qsize()

    @property
    def lost(self) -> int:
        """How many threads are late with their work."""
        return self._lost

    async def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """Return what work returns. Raise Late after timeout_s, Overloaded when too much waits."""
        job = self._put(work)
        try:
            async with asyncio.timeout(timeout_s):
                result: T = await asyncio.wrap_future(job.future)
                return result
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        except TimeoutError as exc:
            self._give_up(job)
            raise Late("the model did not answer within the deadline") from exc
        finally:
            del job  # or an error holds itself, by way of this frame, and all that the work held when it was raised

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Return the same to a thread."""
        job = self._put(work)
        try:
            result: T = job.future.result(timeout_s)
            return result
        except TimeoutError as exc:
            self._give_up(job)
            raise Late("the model did not answer within the deadline") from exc
        finally:
            del job

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in range(self._begun + self._lost):
            self._jobs.put(None)

    def _put(self, work: Callable[[], T]) -> _Job:
        with self._lock:
            is_new = self._begun < self._threads
            self._begun += is_new
        # First, also where no more may wait: nobody else begins the thread that gets them out of the way.
        if is_new and not self._begin() and not self._begun:
            raise Overloaded("the system gives no thread", retry_after_s=1)
        if self._jobs.qsize() >= self._depth:
            raise Overloaded(f"{self._depth} requests wait for a thread already", retry_after_s=1)
        job = _Job(work)
        self._jobs.put(job)
        return job

    def _give_up(self, job: _Job) -> None:
        """Stop waiting for a job: one that has not begun never will, one that runs has its thread replaced."""
        if job.future.cancel():
            del job.work  # and what it holds, although the job still queues
            return
        with self._lock:
            if job.future.done() or job.lost or self._lost >= self._most_lost:
                return
            job.lost = True
            self._lost += 1
        _log.warning("lane.thread_lost", lane=self.name, lost=self._lost)
        self._begin()

    def _begin(self) -> bool:
        """Begin a thread; return whether that went well. If not, its place is left to who puts the next job."""
        try:
            threading.Thread(target=self._work, name=self.name, daemon=True).start()
        except RuntimeError as exc:
            with self._lock:
                self._begun -= 1
            _log.error("lane.no_thread", lane=self.name, reason=str(exc))
            return False
        return True

    def _work(self) -> None:
        if self._niceness and sys.platform == "linux":
            # To Linux alone a thread is a process of its own here.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                outcome, error = job.work(), None
            except BaseException as exc:  # it belongs to whoever waits
                outcome, error = None, exc
                _let_go(exc)
            with self._lock:
                if error is None:
                    job.future.set_result(outcome)
                else:
                    job.future.set_exception(error)
                if job.lost:
                    self._lost -= 1
                    return
            del job, outcome, error


def _let_go(error: BaseException) -> None:
    """Have the frames of an error hold nothing any more: a body that is refused, and what was made of it, would stay
    until whoever waits has told so, while the next one is read."""
    told: BaseException | None = error
    while told is not None:
        traceback.clear_frames(told.__traceback__)
        told = told.__cause__ or told.__context__
