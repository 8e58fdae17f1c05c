"""What drift or a sink refused, kept in a file for whoever looks into why."""

from __future__ import annotations

from pathlib import Path

from modelyard_common.logs import get_logger
from prometheus_client import Counter

from modelyard_inference.adapters import metrics

__all__ = ["DeadLetters"]

_log = get_logger(__name__)


class DeadLetters:
    """The file of what somebody refused; bounded, then only counted."""

    def __init__(self, path: Path, max_bytes: int = 16 * 1024**2, *, refused: Counter = metrics.EVENTS_REFUSED) -> None:
        self._path = path
        self._refused = refused
        self._max_bytes = max_bytes

    def put(self, payload: bytes, reason: str) -> None:
        """Set one record aside."""
        self._refused.inc()
        _log.error("event.refused", reason=reason)
        try:
            if not self._path.exists() or self._path.stat().st_size + len(payload) < self._max_bytes:
                with self._path.open("ab") as handle:
                    handle.write(payload + b"\n")
        except OSError as exc:
            _log.error("dead_letters.not_written", kind=type(exc).__name__)
