"""A worker's part in its server: it says how it is, asks about all, and goes when the supervisor is gone."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from modelyard_common.errors import NotFound, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.merged_metrics import own_families
from modelyard_common.tasks import StopSignal
from prometheus_client import REGISTRY

from modelyard_inference.adapters.workers.channel import Channel, Handlers
from modelyard_inference.adapters.workers.pod import LOAD_S
from modelyard_inference.adapters.workers.post import Post
from modelyard_inference.domain.ports import Loading, VersionOutcome

__all__ = ["Member"]

_log = get_logger(__name__)
_LOOK_S = 0.02
_TURN_S = 0.1
"""Between two looks at whether the event loop has ended meanwhile, and will have no turn any more."""
_METRICS_S = 10.0


class Member:
    """One worker among others.

    Attributes:
        post: its place.
    """

    def __init__(self, post: Post) -> None:
        self.post = post
        self._complete = post.joins
        self._missing = 0
        self._told_ready = False
        self._own: Loading | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled: Callable[[], bool] = lambda: False
        self._draining: Callable[[], bool] = lambda: False
        self._spool: Callable[[], Any] = lambda: None
        self._broken: Callable[[], str | None] = lambda: None
        os.set_inheritable(post.channel, False)  # what it starts is not the server
        handlers: Handlers = {
            "collect": _told_families,
            "others": self._hear_of_others,
            "beat": self._beat,
            "load": self._load_here,
            "unload": self._unload_here,
            "spool": self._tell_spool,
        }
        self._channel = Channel(socket.socket(fileno=post.channel), handlers, _orphaned)
        self._channel.start()

    def begin(
        self,
        own: Loading,
        *,
        settled: Callable[[], bool],
        draining: Callable[[], bool],
        spool: Callable[[], Any],
        broken: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take what this worker does itself.

        Args:
            own: loads and unloads here.
            settled: whether what this worker serves is loaded.
            draining: whether it is about to end.
            spool: its spool, in values that travel.
            broken: what is wrong with this worker that only another one mends; None while nothing is.
        """
        self._own, self._settled, self._draining, self._spool = own, settled, draining, spool
        self._broken = broken

    async def before_listening(self) -> None:
        """Return at once when all begin together; one that joins waits until it can answer as the others do."""
        self._loop = asyncio.get_running_loop()
        self._channel.tell("up")
        if not self.post.joins:
            return
        while not self._settled() and not self._draining():  # noqa: ASYNC110  # other threads settle it
            await asyncio.sleep(_LOOK_S)
        for model in self.post.unloaded:
            try:
                await asyncio.to_thread(self._unload_here, model)
            except NotFound:
                continue  # it is gone since

    def say(self, stop: StopSignal) -> None:
        """Tell whether this worker is ready, when that has changed: a task."""
        del stop
        ready = self._settled() and self._broken() is None
        if ready != self._told_ready:
            self._told_ready = ready
            self._channel.tell("ready", ready)

    def settle(self, stop: StopSignal) -> None:
        """Count what is only kept so far, so that it outlives this process: a task."""
        del stop
        for _ in REGISTRY.collect():
            pass

    def check(self) -> str | None:
        """Return what is missing before the server is ready: a critical health check."""
        return None if self._complete else "not all workers are ready yet"

    def check_others(self) -> str | None:
        """Return how many workers cannot answer yet: a health check."""
        return f"{self._missing} of {self.post.of} workers are not ready" if self._missing else None

    def tell(self, model: str, digest: str, revision: int, outcome: VersionOutcome, reason: str = "") -> None:
        """Tell what became of a version in this worker."""
        self._channel.tell("report", model, digest, revision, outcome, reason)

    def load(self, model: str) -> None:
        """Load a model in all workers."""
        self._channel.ask("load", model, timeout_s=LOAD_S)

    def unload(self, model: str) -> None:
        """Unload a model in all workers."""
        self._channel.ask("unload", model, timeout_s=LOAD_S)

    def render_metrics(self) -> tuple[bytes, str]:
        """Return what all workers show together."""
        content, media_type = self._channel.ask("metrics", timeout_s=_METRICS_S)
        return content, media_type

    def counts(self, metrics: Sequence[str]) -> list[tuple[str, dict[str, str], float]]:
        """Return what all workers have counted: sample, labels, number."""
        told = self._channel.ask("counts", list(metrics))
        return [(sample, dict(labels), number) for sample, labels, number in told]

    def spools(self) -> list[Any]:
        """Return every worker's spool."""
        found: list[Any] = self._channel.ask("each", "spool")
        return found

    def _beat(self) -> bool:
        """Return once the event loop has had a turn: it is what answers. False: it has ended, as this process will.

        Raises:
            Unavailable: it turns, and this worker does not do its part all the same.
        """
        loop, turned = self._loop, threading.Event()
        if loop is None:
            return True
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it is closed
            return False
        while not turned.wait(_TURN_S):
            if loop.is_closed():
                return False
        if (reason := self._broken()) is not None:
            _log.error("worker.broken", slot=self.post.slot, reason=reason)
            raise Unavailable(reason)
        return True

    def _load_here(self, model: str) -> None:
        self._loading.load(model)

    def _unload_here(self, model: str) -> None:
        self._loading.unload(model)

    def _tell_spool(self) -> Any:
        return self._spool()

    @property
    def _loading(self) -> Loading:
        if self._own is None:
            raise Unavailable("this worker is only starting", retry_after_s=1)
        return self._own

    def _hear_of_others(self, missing: int, is_complete: bool) -> None:
        self._missing, self._complete = missing, self._complete or is_complete


def _told_families() -> list[tuple[Any, ...]]:
    """Return what this process shows beside its counts, in values that travel."""
    return [(one.name, one.documentation, one.kind, one.samples) for one in own_families()]


def _orphaned() -> None:
    """End now: whoever starts the server again needs its ports and its spools."""
    _log.error("supervisor.gone")
    os._exit(1)
