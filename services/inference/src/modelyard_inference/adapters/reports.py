"""Tells the registry what became of versions here, in the background: at least once, the latest of each kind.

That a version was refused, or has tripped, ends its rollout: it is told also where the version is served again before
the registry could be reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from modelyard_common.errors import ModelyardError, Overloaded, Unauthenticated, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal
from modelyard_contracts.registry_v1 import RuntimeReport

from modelyard_inference.domain.ports import VersionOutcome

__all__ = ["ReportSink", "RuntimeReports"]

_log = get_logger(__name__)
_MOST = 1000
"""Undelivered reports; each model has a few, so more means that the registry refuses them."""


class ReportSink(Protocol):
    """Takes reports: the registry's client."""

    def report(self, model: str, report: RuntimeReport) -> None:
        """Tell what became of a version on a server."""


class RuntimeReports:
    """Reports on their way.

    Args:
        instance: the name of this server.
        changed: called when there is something to deliver.
    """

    def __init__(self, registry: ReportSink, instance: str, changed: Callable[[], None] = lambda: None) -> None:
        self._registry = registry
        self._instance = instance
        self._changed = changed
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str, int, VersionOutcome], RuntimeReport] = {}
        self._told: dict[tuple[str, str], RuntimeReport] = {}

    def tell(self, model: str, digest: str, revision: int, outcome: VersionOutcome, reason: str = "") -> None:
        """Tell one outcome; telling the same again does nothing."""
        report = RuntimeReport(
            instance=self._instance, digest=digest, revision=revision, outcome=outcome, reason=reason
        )
        with self._lock:
            if self._told.get((model, digest)) == report:
                return
            self._told[model, digest] = report
            key = (model, digest, revision, outcome)
            self._waiting.pop(key, None)  # behind what was told meanwhile: the last word stays the last
            self._waiting[key] = report
            while len(self._waiting) > _MOST:
                self._waiting.pop(next(iter(self._waiting)))
            while len(self._told) > _MOST:
                self._told.pop(next(iter(self._told)))
        self._changed()

    def deliver(self, stop: StopSignal) -> None:
        """Deliver what waits, oldest first; stop at the first that the registry cannot take now."""
        while not stop.is_set():
            with self._lock:
                if not self._waiting:
                    return
                key, report = next(iter(self._waiting.items()))
            try:
                self._registry.report(key[0], report)
            except (Unavailable, Overloaded, Unauthenticated):
                return  # the next round tries again
            except ModelyardError as exc:
                _log.warning("report.refused", model=key[0], outcome=report.outcome, reason=exc.message)
            with self._lock:
                if self._waiting.get(key) == report:
                    del self._waiting[key]
