"""A registry that answers now and then is followed all the same, and is left no stream that nobody reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from inference_fakes import eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Unavailable
from modelyard_common.tasks import Task
from modelyard_contracts.registry_v1 import ModelView, RoutingTable, WatchEvent
from modelyard_inference.adapters.registry_watch import RegistryWatch
from test_inference_lifecycle import Works


class FlakyRegistry:
    """Refuses every second list of models; its watch is quiet but for heartbeats."""

    def __init__(self) -> None:
        self.lists = self.streams = self.most_streams = 0
        self._lock = threading.Lock()

    def models(self) -> list[ModelView]:
        self.lists += 1
        if self.lists % 2 == 0:
            raise Unavailable("not now")
        return []

    def routing(self, model: str) -> RoutingTable:
        raise NotImplementedError

    def watch(
        self,
        last_event_id: int | None = None,
        *,
        timeout_s: float = 15.0,
        ended: Callable[[], bool] = lambda: False,
    ) -> Iterator[WatchEvent]:
        self._count(1)
        try:
            while not ended():
                threading.Event().wait(0.01)
        finally:
            self._count(-1)
        yield from ()

    def _count(self, change: int) -> None:
        with self._lock:
            self.streams += change
            self.most_streams = max(self.most_streams, self.streams)


def test_lists_that_fail_leave_no_stream_behind(tmp_path: Path, bundles: tuple[Packed, Packed]) -> None:
    registry, lifecycle = FlakyRegistry(), Works(tmp_path, *bundles).lifecycle
    watch = RegistryWatch(registry, lifecycle, clock=SystemClock(), changed=lambda: None, poll_s=0.01, resync_s=0.05)
    task = Task("watch", watch.follow)
    task.start()
    eventually(lambda: registry.lists >= 20, 30)
    task.stop()

    assert task.join(10)
    eventually(lambda: registry.streams == 0)
    assert registry.most_streams <= 4
