"""What the supervisor knows of its workers, and answers them: one server's metrics, readiness and repository.

Any worker may be asked about the whole server, since they share a port; it asks here, and here all of them are asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.merged_metrics import Counts, Family, add_counts, counts_of, own_families, render_merged
from modelyard_common.shared_metrics import read_area

from modelyard_inference.adapters.workers.channel import Channel, Handlers
from modelyard_inference.adapters.workers.merged_reports import MergedReports
from modelyard_inference.adapters.workers.pod_metrics import GAUGE_RULES, WORKERS

__all__ = ["LOAD_S", "Pod", "Seat"]

_log = get_logger(__name__)
LOAD_S = 300.0
"""How long all workers may take to load a model: its bundle may have to be fetched."""


@dataclass(slots=True)
class Seat:
    """One worker that runs.

    Attributes:
        area: descriptor of the memory in which it counts.
        has_drained: its event loop has ended by itself, and its process is about to.
        families: what it showed last beside that.
    """

    slot: int
    channel: Channel
    area: int
    is_up: bool = False
    is_ready: bool = False
    has_drained: bool = False
    families: Sequence[Family] = field(default_factory=tuple)


class Pod:
    """The workers together.

    Args:
        size: how many there should be.
    """

    def __init__(self, size: int, reports: MergedReports) -> None:
        self._size = size
        self._reports = reports
        self._lock = threading.Lock()
        self._seats: dict[int, Seat] = {}
        self._past: dict[str, Counts] = {}
        self._unloaded: set[str] = set()
        self._is_complete = False
        self._threads = ThreadPoolExecutor(4 * size, thread_name_prefix="ask-workers")
        # Any number of loads may wait for the others, and must not hold up a scrape.
        self._collecting = ThreadPoolExecutor(2 * size, thread_name_prefix="collect")

    @property
    def is_complete(self) -> bool:
        """Whether all workers have been ready; from then on each that joins waits until it is."""
        return self._is_complete

    @property
    def unloaded(self) -> tuple[str, ...]:
        """The models that were unloaded by request."""
        return tuple(sorted(self._unloaded))

    def handlers(self, slot: int) -> Handlers:
        """Return what a worker may ask and tell."""
        return {
            "up": lambda: self._up(slot),
            "ready": lambda ready: self._ready(slot, ready),
            "report": lambda *told: self._reports.tell(slot, *told),
            "metrics": self.render,
            "counts": self._counts_of,
            "each": self.each,
            "load": self._load,
            "unload": self._unload,
        }

    def seat(self, seat: Seat) -> None:
        """Take in a worker that begins."""
        with self._lock:
            self._seats[seat.slot] = seat
        seat.channel.start()

    def vacate(self, seat: Seat) -> None:
        """Let go of a worker that has ended; what it counted stays counted, where there is memory to read it."""
        with self._lock:
            try:
                add_counts(self._past, counts_of(read_area(seat.area), seat.families))
            except OSError as exc:  # the others are not to end for it
                _log.error("worker.counts_lost", slot=seat.slot, reason=exc.strerror)
            del self._seats[seat.slot]
        os.close(seat.area)
        seat.channel.close()
        self._reports.gone(seat.slot)
        self._announce()

    def each(self, name: str, *arguments: Any, timeout_s: float = LOAD_S) -> list[Any]:
        """Return every worker's answer. Raise the first error, once all have answered."""
        seats = self._all()
        asked = [self._threads.submit(seat.channel.ask, name, *arguments, timeout_s=timeout_s) for seat in seats]
        failed = [error for one in asked if (error := one.exception()) is not None]
        if failed:
            raise failed[0]
        return [one.result() for one in asked]

    def beats(self, seat: Seat, patience_s: float) -> bool:
        """Return whether a worker's event loop turns, or has ended by itself; one that is not up yet may take its time.

        Args:
            patience_s: how long its next turn may take.
        """
        if not seat.is_up:
            return True
        try:
            seat.has_drained = seat.channel.ask("beat", timeout_s=patience_s) is False
        except ModelyardError:
            return False
        return True

    def render(self) -> tuple[bytes, str]:
        """Return one exposition of all of them; of a worker that does not answer, what it last showed."""
        WORKERS.set(len(self._seats))
        for _ in self._collecting.map(_collect, self._all()):
            pass
        own = own_families()
        with self._lock:
            families = [own, *(seat.families for seat in self._seats.values())]
            counts = self._sum()
        add_counts(counts, counts_of((), own))
        return render_merged(counts, families, GAUGE_RULES)

    def _sum(self) -> dict[str, Counts]:
        total: dict[str, Counts] = {}
        add_counts(total, self._past)
        for seat in self._seats.values():
            add_counts(total, counts_of(read_area(seat.area), seat.families))
        return total

    def _counts_of(self, metrics: Sequence[str]) -> list[tuple[str, Any, float]]:
        with self._lock:
            counts = self._sum()
        return [
            (sample, labels, number)
            for name in metrics
            if name in counts
            for (sample, labels), number in counts[name].numbers.items()
        ]

    def _up(self, slot: int) -> None:
        with self._lock:
            if (seat := self._seats.get(slot)) is not None:
                seat.is_up = True

    def _ready(self, slot: int, ready: bool) -> None:
        with self._lock:
            seat = self._seats.get(slot)
            if seat is None:
                return
            seat.is_ready = ready
            if self._missing() == 0:
                self._is_complete = True
        self._announce()

    def _announce(self) -> None:
        """Tell all how many of them cannot answer yet."""
        with self._lock:
            missing, is_complete = self._missing(), self._is_complete
        for seat in self._all():
            seat.channel.tell("others", missing, is_complete)

    def _missing(self) -> int:
        return self._size - sum(seat.is_ready for seat in self._seats.values())

    def _load(self, model: str) -> None:
        self._unloaded.discard(model)
        self.each("load", model)

    def _unload(self, model: str) -> None:
        self.each("unload", model)
        self._unloaded.add(model)

    def _all(self) -> list[Seat]:
        with self._lock:
            return [self._seats[slot] for slot in sorted(self._seats)]


def _collect(seat: Seat) -> None:
    try:
        told = seat.channel.ask("collect")
    except (Unavailable, ModelyardError):
        return
    seat.families = [
        Family(
            name, documentation, kind, [(sample, tuple(map(tuple, labels)), number) for sample, labels, number in all_]
        )
        for name, documentation, kind, all_ in told
    ]
