"""Counts that outlive their process: counters and histograms are kept in memory that another process holds too.

Where several processes are one server, its counters must never go backwards, also when one of them is killed between
two scrapes. The holder makes an area (anonymous memory, so that no full disk is felt and nothing is left behind), and
begins the process with ``python -m modelyard_common.shared_run <fd> <module> …``: whatever ``module`` counts from
then on is there. prometheus_client's own way, files on a disk, costs twice as much for each count, cannot forget a
series, and kills the process when the disk is full.

Layout: the bytes that are used (u64), then entries, each of the length of its key (u64), the key (JSON, padded to
eight bytes) and its number (f64; NaN: forgotten).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import threading
import weakref
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client import values

__all__ = ["AREA_BYTES", "Area", "SharedNumber", "make_area", "read_area", "share"]

AREA_BYTES = 8 * 1024**2
"""Room for about forty thousand series; only what is used takes memory. What finds no room is not shared."""
_SHARED = ("counter", "histogram", "summary")
_WORD = 8
_NUMBER = struct.Struct("<Q")


class SharedNumber(NamedTuple):
    """One number of an area, with the metric that it belongs to."""

    kind: str
    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]
    documentation: str
    number: float


class Area:
    """The memory in which this process counts."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, 0)
        self._size = len(self._map)
        self._used: int = max(_WORD, _NUMBER.unpack_from(self._map)[0])
        self._places: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self.numbers = memoryview(self._map).cast("d")
        self.metrics: set[str] = set()

    def place(self, key: bytes, metric: str) -> int | None:
        """Return where the number of a key is, set to 0; None when there is no room."""
        with self._lock:
            found = self._places.get(key)
            if found is None:
                found = self._append(key)
                if found is None:
                    return None
                self._places[key] = found
            self.metrics.add(metric)
            self.numbers[found] = 0.0
            return found

    def forget(self, place: int) -> None:
        """Say that a number is not counted any more."""
        self.numbers[place] = math.nan

    def _append(self, key: bytes) -> int | None:
        start = self._used
        padded = key + b" " * (-len(key) % _WORD)
        end = start + _WORD + len(padded) + _WORD
        if end > self._size:
            return None
        self._map[start : end - _WORD] = _NUMBER.pack(len(padded)) + padded
        self._used = end
        self._map[:_WORD] = _NUMBER.pack(end)  # last, so that a reader sees whole entries
        return (end - _WORD) // _WORD


def make_area() -> int:
    """Return the descriptor of a new area; it lasts as long as somebody has it open."""
    fd = os.memfd_create("metrics", os.MFD_CLOEXEC)
    os.ftruncate(fd, AREA_BYTES)
    return fd


def read_area(fd: int) -> Iterator[SharedNumber]:
    """Yield what is counted in an area, now."""
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as area:
        used, at = _NUMBER.unpack_from(area)[0], _WORD
        while at < used:
            length = _NUMBER.unpack_from(area, at)[0]
            kind, metric, sample, names, told, documentation = json.loads(area[at + _WORD : at + _WORD + length])
            at += _WORD + length + _WORD
            (number,) = struct.unpack_from("<d", area, at - _WORD)
            if not math.isnan(number):
                yield SharedNumber(kind, metric, sample, tuple(zip(names, told, strict=True)), documentation, number)


def share(fd: int) -> Area:
    """Keep every counter and histogram that is made from now on in an area."""
    area = Area(fd)

    class SharedValue:
        """prometheus_client's value, in the area."""

        _multiprocess = False

        def __init__(
            self, typ: str, metric_name: str, name: str, labelnames: Any, labelvalues: Any, help_text: str, **_: Any
        ) -> None:
            self._lock = threading.Lock()
            self._numbers: Any = array("d", [0.0])
            self._place = 0
            if typ not in _SHARED:
                return
            key = json.dumps([typ, metric_name, name, list(labelnames), list(labelvalues), help_text]).encode()
            place = area.place(key, metric_name)
            if place is not None:
                self._numbers, self._place = area.numbers, place
                weakref.finalize(self, area.forget, place).atexit = False

        def inc(self, amount: float) -> None:
            with self._lock:
                self._numbers[self._place] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:
            del timestamp
            with self._lock:
                self._numbers[self._place] = value

        def get(self) -> float:
            number: float = self._numbers[self._place]
            return number

        def set_exemplar(self, exemplar: Any) -> None:
            """Do nothing: exemplars are of the OpenMetrics format, which is not served."""

        def get_exemplar(self) -> None:
            return None

    values.ValueClass = SharedValue
    return area


shared: Area | None = None
"""The area of this process, if it has one."""
