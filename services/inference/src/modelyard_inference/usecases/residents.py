"""Which runtimes are in memory: those used last, as many as a budget holds; the others are loaded when somebody asks.

Only what runs a version goes. Its signature, its routing and the checks of its rows stay, so that a version out of
memory is described, routed to and validated against as any other, and its first request waits for it to be read.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from modelyard_bundle.runtimes.base import ONNX_FILE, SKOPS_FILE, Predicted, Runtime
from modelyard_bundle.signature import Columns
from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference.domain.ports import Predicting

__all__ = ["Resident", "Residents", "ResidentsObserver", "estimated_bytes"]

_log = get_logger(__name__)
_REST_S = 1.0
"""After an attempt to load that failed, the next requests are refused at once for this long."""
_MEBIBYTE = 1024**2
_TAKES = {"onnx": (2 * _MEBIBYTE, 6), "sklearn": (120 * _MEBIBYTE, 2), "pyfunc": (200 * _MEBIBYTE, 2)}
"""Bytes for having it at all, and for each byte of its files. ONNX Runtime was measured to take 1.8 MB for a linear
model, and 4.6 to 6.7 times the file for forests; scikit-learn and pyfunc bring a process with their libraries."""


def estimated_bytes(manifest: BundleManifest, runtime: str) -> int:
    """Return what a bundle takes in memory, run by that runtime: an estimate from the size of its files."""
    base, factor = _TAKES.get(runtime, (0, 0))
    return base + factor * sum(file.size_bytes for file in manifest.files if _is_of(file.path, runtime))


def _is_of(path: str, runtime: str) -> bool:
    model = {"onnx": ONNX_FILE, "sklearn": SKOPS_FILE}.get(runtime)
    return path == model if model else path not in (ONNX_FILE, SKOPS_FILE)


class ResidentsObserver(Protocol):
    """Counts what comes and goes."""

    def evicted(self, model: str) -> None:
        """Count a runtime that made room."""

    def returned(self, model: str, took_s: float) -> None:
        """Count a runtime that was loaded because somebody asked."""


class Resident:
    """A runtime that may be out of memory. Thread safe; one thread loads it and the others wait for that one."""

    def __init__(
        self, model: str, runtime: Runtime, size_bytes: int, pinned: bool, bring: Callable[[], Runtime], home: Residents
    ) -> None:
        self.model = model
        self.size_bytes = size_bytes
        self.pinned = pinned
        self.used = 0
        self.name = runtime.name
        self._quick = not runtime.blocking
        self._runtime: Runtime | None = runtime
        self._bring = bring
        self._home = home
        self._turn = threading.Lock()
        # Not the exception itself: raised again and again it would keep the frames of all who asked, with their rows.
        self._failure: tuple[str, float | None] | None = None
        self._rests_until = 0.0

    @property
    def blocking(self) -> bool:
        """Whether a prediction may take long: it does when the runtime has to be loaded first."""
        return self._runtime is None or not self._quick

    @property
    def in_memory(self) -> bool:
        """Whether it answers without being loaded."""
        return self._runtime is not None

    @property
    def problem(self) -> str:
        """Why its runtime cannot be asked now, where that is a process or a server that may be away."""
        return str(getattr(self._runtime, "problem", ""))

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked.

        Raises:
            Unavailable: it is out of memory and cannot be loaded now.
        """
        runtime = self._runtime
        if runtime is None:
            runtime = self._returned()
        self.used = self._home.next_use()
        return runtime.predict(columns)

    def begin(self, columns: Columns, done: Predicting) -> bool:
        """Begin a prediction on the running event loop; False where the runtime cannot, or is out of memory."""
        begin = getattr(self._runtime, "begin", None)
        if begin is None:
            return False
        self.used = self._home.next_use()
        return bool(begin(columns, done))

    def let_go(self) -> None:
        """Forget the runtime; requests that run it keep it to their end."""
        self._runtime = None

    def _returned(self) -> Runtime:
        with self._turn:
            if (runtime := self._runtime) is None:
                if self._failure is not None and self._home.now() < self._rests_until:
                    message, retry_after_s = self._failure
                    raise Unavailable(message, retry_after_s=retry_after_s)
                try:
                    runtime = self._home.bring(self, self._bring)
                except Unavailable as exc:
                    self._failure = exc.message, exc.retry_after_s
                    self._rests_until = self._home.now() + _REST_S
                    raise
                # Before it counts as in memory: with the use of before, another that comes back would evict it at once.
                self.used = self._home.next_use()
                self._runtime, self._failure = runtime, None
                self._home.make_room(self)
            return runtime


class Residents:
    """The runtimes of one server under one budget.

    Args:
        budget_bytes: what all runtimes together may take, as estimated; 0 sets no limit.
        pinned: models that are never evicted.
    """

    def __init__(self, budget_bytes: int, pinned: frozenset[str], observer: ResidentsObserver, clock: Clock) -> None:
        self._budget = budget_bytes
        self._pinned = pinned
        self._observer = observer
        self._clock = clock
        # A version that is served no more takes its runtime with it.
        self._all: weakref.WeakSet[Resident] = weakref.WeakSet()
        self._uses = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What the runtimes in memory take together, as estimated."""
        with self._lock:
            return sum(one.size_bytes for one in self._all if one.in_memory)

    def keep(self, model: str, runtime: Runtime, size_bytes: int, bring: Callable[[], Runtime]) -> Runtime:
        """Return a runtime as the engine should use it: itself where there is no budget.

        Args:
            size_bytes: an estimate.
            bring: loads it again; raises what loading raises.
        """
        if not self._budget:
            return runtime
        one = Resident(model, runtime, size_bytes, model in self._pinned, bring, self)
        one.used = self.next_use()
        with self._lock:
            self._all.add(one)
        self.make_room(one)
        return one

    def now(self) -> float:
        """Return seconds, monotonic."""
        return self._clock.monotonic()

    def next_use(self) -> int:
        """Return a number higher than all before; two threads that get the same one used theirs at the same time."""
        self._uses += 1
        return self._uses

    def bring(self, one: Resident, bring: Callable[[], Runtime]) -> Runtime:
        """Load a runtime again."""
        started = self._clock.monotonic()
        try:
            runtime = bring()
        except Unavailable:
            raise
        except Exception as exc:  # whatever a damaged model raises
            reason = exc.message if isinstance(exc, ModelyardError) else type(exc).__name__
            _log.error("version.not_returned", model=one.model, reason=reason)
            raise Unavailable(f"model {one.model!r} cannot be loaded here: {reason}", retry_after_s=5) from exc
        took_s = self._clock.monotonic() - started
        self._observer.returned(one.model, took_s)
        _log.info("version.returned", model=one.model, took_s=round(took_s, 3))
        return runtime

    def make_room(self, newest: Resident) -> None:
        """Evict what was used longest ago until the budget holds what is in memory, the newest always included."""
        with self._lock:
            inside = [one for one in self._all if one.in_memory]
            over = sum(one.size_bytes for one in inside) - self._budget
            for one in sorted(inside, key=lambda one: one.used):
                if over <= 0:
                    return
                if one is newest or one.pinned:
                    continue
                one.let_go()
                over -= one.size_bytes
                self._observer.evicted(one.model)
                _log.info("version.evicted", model=one.model, size_bytes=one.size_bytes)
        if over > 0:
            _log.warning("memory.over_budget", over_bytes=over, budget_bytes=self._budget)
