"""The life of a service: its tasks, the servers beside the HTTP one, and what is closed at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from modelyard_common.health import Health
from modelyard_common.logs import get_logger
from modelyard_common.tasks import Task, in_own_thread

__all__ = ["Companion", "Life"]

_log = get_logger(__name__)
_JOIN_S = 10.0
"""For all tasks together: whoever ends us waits so long, and not once for each of them."""


class Companion(Protocol):
    """A server beside the HTTP one, on its event loop."""

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Take no more requests, finish those in flight, end. A second call waits for the first."""


class Team(Protocol):
    """The processes that are one server together, as one of them sees them."""

    async def before_listening(self) -> None:
        """Return once this process may take connections; its tasks run already."""

    def render_metrics(self) -> tuple[bytes, str]:
        """Return what ``/metrics`` shows of all of them, and its content type."""


@dataclass(frozen=True, slots=True)
class Life:
    """What lives and ends with an application.

    Attributes:
        tasks: started with it, stopped before the closers run.
        on_close: called in order at the end, each whether or not the one before failed.
        companions: servers of other protocols on the same event loop.
        team: the other processes of this server, when it has several.
    """

    service: str
    health: Health
    tasks: Sequence[Task] = ()
    on_close: Sequence[Callable[[], None]] = ()
    companions: Sequence[Companion] = ()
    team: Team | None = None

    @asynccontextmanager
    async def lived(self) -> AsyncIterator[None]:
        """Begin, and end."""
        for task in self.tasks:
            task.start()
        if self.team is not None:
            await self.team.before_listening()
        for companion in self.companions:
            await companion.start()
        self.health.started()
        _log.info("service.started", service=self.service)
        yield
        self.health.drain()
        for companion in self.companions:
            await companion.stop()
        await in_own_thread("closing", lambda: _close(self.tasks, self.on_close))
        _log.info("service.stopped", service=self.service)


def _close(tasks: Sequence[Task], on_close: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task.stop()
    deadline = time.monotonic() + _JOIN_S
    for task in tasks:
        if not task.join(max(0.0, deadline - time.monotonic())):
            _log.warning("task.abandoned", task=task.name)
    for close in on_close:
        try:
            close()
        except Exception as exc:
            _log.error("close.failed", error=exc)
