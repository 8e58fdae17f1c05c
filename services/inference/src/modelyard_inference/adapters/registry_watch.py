"""Follows the registry: by its watch while that can be had, else by polling; and knows how old the routing is.

The watch tells of changes, the list of models tells what there is: they are compared when a watch opens and every
half minute, so that an event that was missed is mended, and a model that is gone goes here too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError, NotFound
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal
from modelyard_contracts.registry_v1 import ModelView, RoutingTable, WatchEvent

from modelyard_inference.adapters.routing_tables import routing_from
from modelyard_inference.usecases.lifecycle import Lifecycle

__all__ = ["RegistryWatch", "WatchedRegistry"]

_log = get_logger(__name__)
_SILENCE_S = 15.0
"""Three heartbeats of the registry's watch."""
_Told = WatchEvent | ModelyardError | None


class WatchedRegistry(Protocol):
    """The part of the registry's client that is used."""

    def models(self) -> list[ModelView]:
        """Return all models."""

    def routing(self, model: str) -> RoutingTable:
        """Return who answers what."""

    def watch(
        self,
        last_event_id: int | None = None,
        *,
        timeout_s: float = 15.0,
        ended: Callable[[], bool] = lambda: False,
    ) -> Iterator[WatchEvent]:
        """Yield events as they come, until it has ended: that is asked at every heartbeat."""


class RegistryWatch:
    """Turns what the registry tells into wishes.

    Args:
        changed: called after wishes changed.
        poll_s: between two attempts while the watch cannot be had.
        resync_s: between two comparisons while it can.
    """

    def __init__(
        self,
        registry: WatchedRegistry,
        lifecycle: Lifecycle,
        *,
        clock: Clock,
        changed: Callable[[], None],
        poll_s: float = 1.0,
        resync_s: float = 30.0,
    ) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._clock = clock
        self._changed = changed
        self._poll_s = poll_s
        self._resync_s = resync_s
        self._last_event: int | None = None
        self._heard: float | None = None
        self._connected = False
        self._away = False
        self._problem: str | None = "the registry has not been heard yet"

    @property
    def age_s(self) -> float | None:
        """Seconds since the routing was last known to be the registry's; None if it never was."""
        if self._heard is None:
            return None
        return 0.0 if self._connected else self._clock.monotonic() - self._heard

    @property
    def problem(self) -> str | None:
        """Why the registry is not followed right now."""
        return self._problem

    def follow(self, stop: StopSignal) -> None:
        """Follow until told to stop."""
        while not stop.is_set():
            try:
                self.compare()
                self._listen(stop)
            except ModelyardError as exc:
                if not self._away:
                    _log.warning("registry.away", reason=exc.message)
                self._away, self._problem = True, exc.message
            finally:
                self._connected = False
            stop.wait(self._poll_s)

    def compare(self) -> None:
        """Compare with the registry's list of models, and ask for the routing of those that differ.

        Raises:
            ModelyardError: the registry does not answer.
        """
        names = []
        for model in self._registry.models():
            if model.deleted:
                continue
            names.append(model.name)
            if model.routing_revision != self._lifecycle.revision(model.name):
                self._take(model.name)
        self._lifecycle.complete(names)
        self._heard = self._clock.monotonic()
        self._away, self._problem = False, None
        self._changed()

    def _take(self, model: str) -> None:
        try:
            table = self._registry.routing(model)
        except NotFound:  # deleted since
            self._lifecycle.forget(model)
            return
        # The registry says what is, also when it was restored from an older copy.
        self._lifecycle.wish(routing_from(table), older=True)

    def _listen(self, stop: StopSignal) -> None:
        told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
        ended = threading.Event()
        # A thread of its own, because a read from a quiet stream cannot be interrupted: a stop must not wait for it. It
        # ends with the next heartbeat, so that streams which nobody listens to do not add up.
        threading.Thread(target=self._read, args=(told, ended), name="registry-stream", daemon=True).start()
        self._connected = True
        compared = self._clock.monotonic()
        try:
            while not stop.is_set():
                try:
                    event = told.get(timeout=0.2)
                except queue.Empty:
                    if self._clock.monotonic() - compared >= self._resync_s:
                        self.compare()
                        compared = self._clock.monotonic()
                    continue
                if event is None:
                    return
                if isinstance(event, ModelyardError):
                    raise event
                self._heed(event)
        finally:
            ended.set()
            self._heard = self._clock.monotonic()

    def _read(self, told: queue.SimpleQueue[_Told], ended: threading.Event) -> None:
        try:
            for event in self._registry.watch(self._last_event, timeout_s=_SILENCE_S, ended=ended.is_set):
                told.put(event)
            told.put(None)
        except ModelyardError as exc:
            told.put(exc)
        except Exception as exc:  # a stream that makes no sense is a stream that broke
            told.put(ModelyardError(f"the registry's watch cannot be read ({type(exc).__name__})"))

    def _heed(self, event: WatchEvent) -> None:
        self._last_event = event.seq
        if event.kind != "routing" or event.routing is None:
            return
        if event.routing.deleted:
            self._lifecycle.forget(event.model)
        else:
            self._lifecycle.wish(routing_from(event.routing))
        self._changed()
