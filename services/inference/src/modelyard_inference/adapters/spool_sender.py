"""What empties the spool, whoever takes what is in it: at once while they do, after growing pauses while not."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal

__all__ = ["SpoolSender"]

_log = get_logger(__name__)
_LOOK_S = 0.25
_FIRST_PAUSE_S = 0.1


class SpoolSender(ABC):
    """Sends until told to stop, and a little longer.

    Args:
        whom: who takes it, for the log.
        longest_pause_s: between two attempts while they do not.
        flush_s: how long to send on after the stop.
    """

    def __init__(self, whom: str, *, longest_pause_s: float, flush_s: float) -> None:
        self._whom = whom
        self._longest_pause_s = longest_pause_s
        self._flush_s = flush_s
        self._woken = threading.Event()
        self._problem: str | None = None
        self._stop: StopSignal | None = None
        self._until: float | None = None

    @abstractmethod
    def send_once(self) -> bool:
        """Send what is next, or as much of it as there is time for; return whether there was something.

        Raises:
            ModelyardError: it cannot be taken now; it stays in the spool.
        """

    def heed(self, stop: StopSignal) -> None:
        """Send no longer than a little after this signal."""
        self._stop = stop

    @abstractmethod
    def close(self) -> None:
        """Let go of what it sends with."""

    def wake(self) -> None:
        """Say that something was written."""
        if not self._woken.is_set():
            self._woken.set()

    def check(self) -> str | None:
        """Return what is wrong: a health check."""
        return self._problem

    def run(self, stop: StopSignal) -> None:
        """Send until told to stop, and a little longer."""
        self.heed(stop)
        pause_s = _FIRST_PAUSE_S
        self._woken.set()
        while not stop.is_set():
            if not self._woken.wait(_LOOK_S):
                continue
            self._gather(stop)
            self._woken.clear()
            try:
                if self.send_once():
                    self._woken.set()
                pause_s = _FIRST_PAUSE_S
            except ModelyardError as exc:
                self._away(exc)
                self._woken.set()
                stop.wait(self._wait_s(exc, pause_s))
                pause_s = min(pause_s * 2, self._longest_pause_s)
        self._flush()

    def _gather(self, stop: StopSignal) -> None:
        """Wait for more to send together."""
        del stop

    def _wait_s(self, error: ModelyardError, pause_s: float) -> float:
        """Return how long to wait after an error."""
        del error
        return pause_s

    def _back(self) -> None:
        if self._problem is not None:
            _log.info(f"{self._whom}.back")
            self._problem = None

    def _away(self, error: ModelyardError) -> None:
        if self._problem is None:
            _log.warning(f"{self._whom}.away", reason=error.message)
        self._problem = f"events wait on disk: {error.message}"

    def _flush(self) -> None:
        try:
            while not self._out_of_time() and self.send_once():
                pass
        except ModelyardError as exc:
            self._away(exc)

    def _out_of_time(self) -> bool:
        """Return whether the stop is so long ago that nothing more may be waited for."""
        if self._stop is None or not self._stop.is_set():
            return False
        if self._until is None:
            self._until = time.monotonic() + self._flush_s
        return time.monotonic() >= self._until
