"""Background work under supervision: every task has a name, an owner and an ending.

A task that raises is logged, counted, backed off and run again: a loop never dies in silence.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from prometheus_client import Counter

from modelyard_common.logs import get_logger

__all__ = ["StopSignal", "Task", "in_own_thread"]

T = TypeVar("T")

_log = get_logger(__name__)
_FAILURES = Counter("modelyard_task_failures_total", "Background tasks that raised and were run again", ["task"])
_MIN_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0


class StopSignal(Protocol):
    """Tells a task to end."""

    def is_set(self) -> bool:
        """Return whether the task should end now."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for that, at most timeout seconds; return whether it came."""


class Task:
    """A supervised thread.

    Args:
        name: for logs and metrics.
        run: the work. With interval_s one round of it; without, a loop that ends when the signal is set.
        interval_s: seconds between rounds; ``wake`` starts the next one at once.
    """

    def __init__(self, name: str, run: Callable[[StopSignal], None], interval_s: float | None = None) -> None:
        self.name = name
        # From 0 on: to Prometheus a series that begins at 1 has not risen.
        self._failures = _FAILURES.labels(task=name)
        self._run = run
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._supervise, name=self.name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Start the next round now; during a round, once more right after it."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the task to end."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end, at most timeout_s seconds; return whether it came."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _supervise(self) -> None:
        backoff_s = _MIN_BACKOFF_S
        while not self._stop.is_set():
            self._wake.clear()
            if self._stop.is_set():  # between the two lines above its wake-up would be lost
                return
            try:
                self._run(self._stop)
                backoff_s = _MIN_BACKOFF_S
            except Exception as exc:
                self._failures.inc()
                _log.error("task.failed", error=exc, task=self.name, retry_in_s=backoff_s)
                self._stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                continue
            # A loop that ended by itself is run again, and must not spin.
            self._wake.wait(_MIN_BACKOFF_S if self._interval_s is None else self._interval_s)


async def in_own_thread(name: str, work: Callable[[], T]) -> T:
    """Return what work returns, done in a thread that waits for no thread of others."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
