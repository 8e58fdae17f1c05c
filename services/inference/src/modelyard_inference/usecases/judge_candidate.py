"""Count a candidate's failures: each goes to the log against it, and a few in a row end its requests here."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_common.errors import Invalid, Overloaded
from modelyard_common.logs import get_logger

from modelyard_inference.domain.ports import Observer, PayloadSink, Reports
from modelyard_inference.domain.requests import Late, Role
from modelyard_inference.usecases.record import Ask, error_block
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = ["JudgeCandidate"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JudgeCandidate:
    """Keeps the books on a candidate."""

    sink: PayloadSink
    observer: Observer
    reports: Reports

    def failed(self, ask: Ask, candidate: LoadedVersion, role: Role, error: Exception, latency_s: float) -> None:
        """Count a failure. The record tells its kind, never values."""
        kind, words = _described(error)
        version = candidate.version
        self.observer.failed(ask.query.model, version.number, role, kind)
        self.sink.append([error_block(ask, candidate, role, words, latency_s)])
        guard = ask.serving.guard
        if guard is not None and guard.failed():
            _log.warning("candidate.tripped", model=ask.query.model, version=version.number, reason=words)
            self.reports.tell(ask.query.model, version.digest, ask.serving.routing.revision, "tripped", words)


def _described(error: Exception) -> tuple[str, str]:
    """Return the kind of a failure and a sentence about it."""
    if isinstance(error, Late):
        return "late", "it did not answer in time"
    if isinstance(error, Overloaded):
        return "overloaded", "too many requests wait for it"
    if isinstance(error, Invalid):
        return "refused", "it refuses rows that the champion takes"
    return "failed", f"it failed ({type(error).__name__})"
