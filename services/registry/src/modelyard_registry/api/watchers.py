"""Wakes the watches of this process when something was committed; bounded, and closed on shutdown.

A watch that is not woken polls: another replica may have written. The database stays the only truth.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelyard_common.errors import Overloaded

__all__ = ["Subscription", "Watchers"]


class Subscription:
    """One open watch, owned by the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Wake the watch, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout_s: float) -> None:
        """Return when woken, or after timeout_s."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


class Watchers:
    """All open watches of this process."""

    def __init__(self, limit: int, count: Callable[[int], None] = lambda count: None) -> None:
        self._limit = limit
        self._count = count
        self._lock = threading.Lock()
        self._open: set[Subscription] = set()
        self.closed = False

    def check(self) -> None:
        """Raise Overloaded when there is no room for another watch."""
        if self.closed or len(self._open) >= self._limit:
            raise Overloaded(f"there are {self._limit} watches already; try again", retry_after_s=5)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Open a watch for the time of the block."""
        subscription = Subscription()
        with self._lock:
            self._open.add(subscription)
            self._count(len(self._open))
        try:
            yield subscription
        finally:
            with self._lock:
                self._open.discard(subscription)
                self._count(len(self._open))

    def notify(self) -> None:
        """Wake every watch."""
        with self._lock:
            subscriptions = list(self._open)
        for subscription in subscriptions:
            subscription.wake()

    def close(self) -> None:
        """Have every watch end, so that the process can."""
        self.closed = True
        self.notify()
