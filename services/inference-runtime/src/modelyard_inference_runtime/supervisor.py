"""Who needs which versions: each is kept as long as one connection does, and let go with the last.

Several servers may share one runtime, and one that was killed says nothing: so what it asked for ends with its
connection. What is held against a version outlives it, or loading it again would forget that it crashes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelyard_bundle.isolated import Load, Loaded, Replace, Status
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.refs import Digest

from modelyard_inference_runtime.crashes import CrashRecord
from modelyard_inference_runtime.keeper import Keeper, Start

__all__ = ["Limits", "Supervisor"]

_log = get_logger(__name__)
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a runtime; see ``RuntimeSettings``."""

    pyfunc: bool = False
    most_versions: int = 32
    start_timeout_s: float = 60.0
    crash_limit: int = 5
    crash_window_s: float = 300.0


class Supervisor:
    """All versions that are loaded here.

    Args:
        sockets: the folder of their sockets.
        start: starts the process of one.
    """

    def __init__(self, sockets: Path, start: Start, limits: Limits, *, monotonic: Callable[[], float]) -> None:
        self._sockets = sockets
        self._start = start
        self._limits = limits
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._keepers: dict[str, Keeper] = {}
        self._holders: dict[str, set[object]] = {}
        self._crashes: dict[str, CrashRecord] = {}

    def load(self, holder: object, wanted: Load) -> Loaded:
        """Return where a version is asked; it is loaded until its last holder lets go.

        Raises:
            Invalid: it cannot be loaded here, or ends too often.
            Unavailable: it is not ready in time, or too many are loaded.
        """
        self._check(wanted)
        with self._lock:
            keeper = self._keepers.get(wanted.digest)
            if keeper is None:
                keeper = self._begin(wanted)
            self._holders.setdefault(wanted.digest, set()).add(holder)
        try:
            return keeper.await_ready(self._limits.start_timeout_s)
        except Invalid:
            self._release(holder, wanted.digest)
            raise

    def unload(self, holder: object, digest: str) -> None:
        """Let go of one version."""
        self._release(holder, digest)

    def let_go(self, holder: object) -> None:
        """Let go of all that a holder has asked for."""
        with self._lock:
            held = [digest for digest, holders in self._holders.items() if holder in holders]
        for digest in held:
            self._release(holder, digest)

    def replace(self, wanted: Replace) -> None:
        """End a process that hangs."""
        with self._lock:
            keeper = self._keepers.get(wanted.digest)
        if keeper is not None:
            keeper.replace(wanted.process, wanted.reason[:300])

    def status(self) -> Status:
        """Return how each version is doing."""
        with self._lock:
            keepers = list(self._keepers.values())
        return Status(os.getpid(), tuple(keeper.status() for keeper in keepers))

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            keepers, self._keepers = list(self._keepers.values()), {}
        for keeper in keepers:
            keeper.close()

    def _check(self, wanted: Load) -> None:
        if wanted.runtime not in ("sklearn", "pyfunc"):
            raise Invalid(f"there is no {wanted.runtime[:40]} runtime here")
        if wanted.runtime == "pyfunc" and not self._limits.pyfunc:
            raise Invalid(
                "pyfunc models are code and are not allowed here: set MODELYARD_INFERENCE_RUNTIME_PYFUNC=true "
                "where you trust everybody who may register one"
            )

    def _begin(self, wanted: Load) -> Keeper:
        """Start a keeper; called with the lock held."""
        if len(self._keepers) >= self._limits.most_versions:
            raise Unavailable(f"{len(self._keepers)} versions are loaded already", retry_after_s=5)
        limits = self._limits
        crashes = self._crashes.pop(wanted.digest, CrashRecord(limits.crash_limit, limits.crash_window_s))
        if crashes.is_quarantined(now := self._monotonic()):
            self._crashes[wanted.digest] = crashes
            raise Invalid(crashes.sentence(now))
        address = self._sockets / f"{Digest.parse(wanted.digest).hex[:16]}.sock"
        keeper = Keeper(wanted, address, self._start, crashes, limits.start_timeout_s)
        self._keepers[wanted.digest] = keeper
        _log.info("version.begun", digest=wanted.digest, runtime=wanted.runtime)
        return keeper

    def _release(self, holder: object, digest: str) -> None:
        with self._lock:
            holders = self._holders.get(digest, set())
            holders.discard(holder)
            if holders:
                return
            self._holders.pop(digest, None)
            keeper = self._keepers.pop(digest, None)
        if keeper is None:
            return
        keeper.close()
        with self._lock:
            if keeper.crashes.ends:
                self._crashes[digest] = keeper.crashes
                while len(self._crashes) > _REMEMBERED:
                    self._crashes.pop(next(iter(self._crashes)))
        _log.info("version.ended", digest=digest)
