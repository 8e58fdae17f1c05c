"""One server's word about a version, made of what each of its workers says.

It serves a version once all of them do. One that refuses it, or has stopped sending it requests, speaks for all.
"""

from __future__ import annotations

import threading
from typing import TypeVar

from modelyard_inference.domain.ports import Reports, VersionOutcome

__all__ = ["MergedReports"]

K = TypeVar("K")
V = TypeVar("V")

_MOST = 1000
"""Revisions that not all workers have come to yet; older ones have been overtaken."""


class MergedReports:
    """Hands on what is true of all workers.

    Args:
        reports: tells the registry.
        workers: how many there are.
    """

    def __init__(self, reports: Reports, workers: int) -> None:
        self._reports = reports
        self._workers = workers
        self._lock = threading.Lock()
        self._serving: dict[tuple[str, str, int], set[int]] = {}
        self._against: dict[tuple[str, str, int], set[int]] = {}
        self._told: dict[tuple[str, str], int] = {}

    def tell(
        self, slot: int, model: str, digest: str, revision: int, outcome: VersionOutcome, reason: str = ""
    ) -> None:
        """Take one worker's outcome."""
        key = (model, digest, revision)
        if outcome != "serving":
            with self._lock:
                self._against.setdefault(key, set()).add(slot)
                _forget_oldest(self._against)
            self._reports.tell(model, digest, revision, outcome, reason)
            return
        with self._lock:
            slots = self._serving.setdefault(key, set())
            slots.add(slot)
            against = self._against.get(key, set())
            against.discard(slot)
            # A worker that comes late to an older revision does not take back what was said of a newer one.
            whole = len(slots) == self._workers and not against and revision >= self._told.get((model, digest), 0)
            if whole:
                self._told[model, digest] = revision
            _forget_oldest(self._serving)
            _forget_oldest(self._told)
        if whole:
            self._reports.tell(model, digest, revision, outcome, reason)

    def gone(self, slot: int) -> None:
        """Say that a worker has ended: what it served, the one that replaces it has to serve first."""
        with self._lock:
            for slots in (*self._serving.values(), *self._against.values()):
                slots.discard(slot)


def _forget_oldest(known: dict[K, V]) -> None:
    while len(known) > _MOST:
        del known[next(iter(known))]
