"""Runtimes in processes beside: scikit-learn and pyfunc, where a crash or a leak costs that model and nothing else.

While a version's process is away, its requests are refused at once: whoever waited here would hold a thread that other
models need. A round in the background has it loaded again, and whoever asked can see when. A call that takes longer
than any request may wait is a hang: the caller hears so, and the process is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
from modelyard_bundle.isolated import (
    ASK,
    LOAD,
    PREDICT,
    REPLACE,
    STATUS,
    UNLOAD,
    Load,
    Loaded,
    Peer,
    Replace,
    Status,
    Unload,
    VersionStatus,
    answer_of,
    ask_of,
    decoded,
    encoded,
    predicted_of,
)
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns
from modelyard_common.errors import Invalid, ModelyardError, Unavailable
from modelyard_common.frames import packed
from modelyard_common.logs import get_logger
from modelyard_common.tasks import Task
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference.adapters.isolated_lines import Line
from modelyard_inference.adapters.isolated_process import RuntimeHost
from modelyard_inference.domain.ports import Predicting
from modelyard_inference.domain.requests import Away, Late

__all__ = ["IsolatedRuntime", "IsolatedRuntimes"]

_log = get_logger(__name__)
_LOAD_S = 90.0
"""More than the runtime itself allows a version to take, so that it is the one to say why."""
_CONTROL_S = 5.0
_ROUND_S = 1.0
_IDLE = 8
"""Connections to a version that are kept; each is a thread on the other side."""
_LINES = 4
"""Those of an event loop. Whoever finds them busy asks in a thread: then something takes long."""


class IsolatedRuntime:
    """One version in its process.

    Attributes:
        problem: why it cannot be asked now; empty when it can, as far as is known.
        looks: how often it was found ready.
        given_up: it is not started again by itself.
        idle: connections that wait for the next call of a thread; lines: those of an event loop.
    """

    blocking = True

    def __init__(self, owner: IsolatedRuntimes, load: Load, loaded: Loaded, call_s: float) -> None:
        self.name = load.runtime
        self.load = load
        self.loaded = loaded
        self.problem = ""
        self.looks = 0
        self.given_up = False
        self._owner = owner
        self._call_s = call_s
        self.idle: list[Peer] = []
        self.lines: list[Line] = []
        self._connecting: asyncio.Task[None] | None = None

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked.

        Raises:
            Late: it hangs, and is replaced.
            Away: its process has ended, and is started again.
            Unavailable: it is left alone.
            ModelFailed: the model raised.
        """
        return predicted_of(self._asked(PREDICT, columns, {}, self._call_s))

    def begin(self, columns: Columns, done: Predicting) -> bool:
        """Begin a prediction on the running event loop; ``done`` takes what ``predict`` would return or raise.

        Returns:
            False, having done nothing, when it cannot begin now: a thread may then ask by ``predict``.
        """
        line = self._free_line()
        if line is None:
            return False
        loaded = self.loaded

        def told(answer: tuple[int, bytes] | Exception) -> None:
            done(self._found(answer, loaded))

        line.ask(packed(ASK, encoded(ask_of(PREDICT, columns))), self._call_s, told)
        return True

    def ask(self, operation: str, columns: Columns, options: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        """Return what another operation gives, as plain values. Raise as ``predict`` does; Invalid: there is none."""
        body = self._asked(operation, columns, options, self._call_s if timeout_s is None else timeout_s)
        return msgspec.msgpack.decode(body)

    def found_ready(self, loaded: Loaded) -> None:
        """Take note that it can be asked, and where."""
        self.loaded, self.problem, self.given_up = loaded, "", False
        self.looks += 1

    def close(self) -> None:
        """End the connections."""
        _close_all(self.idle, self.lines)

    def _free_line(self) -> Line | None:
        loop = asyncio.get_running_loop()
        for line in self.lines:
            if line.is_free and line.loop is loop:
                return line
        for line in list(self.lines):
            if not line.is_open or line.loop is not loop:
                self.lines.remove(line)
                line.close()
        busy = self._connecting is not None and not self._connecting.done()
        if not busy and len(self.lines) < _LINES and not self.problem:
            self._connecting = loop.create_task(self._connect(), name=f"line to {self.load.digest[:19]}")
        return None

    async def _connect(self) -> None:
        line = Line()
        address = str(self._owner.address(self.loaded))
        with contextlib.suppress(OSError):  # whoever asks in a thread meanwhile hears of it
            await line.loop.create_unix_connection(lambda: line, address)
            self.lines.append(line)

    def _found(self, answer: tuple[int, bytes] | Exception, loaded: Loaded) -> Predicted | Exception:
        try:
            if isinstance(answer, Exception):
                raise answer
            return predicted_of(answer_of(*answer))
        except TimeoutError:
            reason = f"it did not answer within {self._call_s:.0f} s"
            threading.Thread(target=self._owner.hangs, args=[self, loaded, reason], name="hang", daemon=True).start()
            return Late("the model did not answer within the deadline")
        except (OSError, EOFError):
            self._owner.lost(self)
            return self._away(began=True)
        except Exception as exc:
            return exc

    def _asked(self, operation: str, columns: Columns, options: Mapping[str, Any], timeout_s: float) -> bytes:
        asked = ask_of(operation, columns, options)
        loaded = self.loaded
        peer = self._peer(loaded)
        try:
            body = peer.call(ASK, asked, timeout_s)
        except TimeoutError as exc:
            peer.close()
            self._owner.hangs(self, loaded, f"it did not answer within {timeout_s:.0f} s")
            raise Late("the model did not answer within the deadline") from exc
        except (OSError, EOFError) as exc:
            peer.close()
            self._owner.lost(self)
            raise self._away(began=True) from exc
        except BaseException:
            self._keep(peer)
            raise
        self._keep(peer)
        return body

    def _peer(self, loaded: Loaded) -> Peer:
        while self.idle:
            try:
                peer = self.idle.pop()
            except IndexError:
                break
            if peer.is_open:
                return peer
            peer.close()
        try:
            return Peer(self._owner.address(loaded))
        except OSError as exc:
            self._owner.lost(self)
            raise self._away(began=False) from exc

    def _keep(self, peer: Peer) -> None:
        if len(self.idle) < _IDLE:
            self.idle.append(peer)
        else:
            peer.close()

    def _away(self, *, began: bool) -> Unavailable:
        reason = self.problem or "its process is started again"
        message = f"the {self.name} runtime of this version is away: {reason}"
        if self.given_up:
            return Unavailable(message, retry_after_s=1)
        looks = self.looks
        return Away(message, began=began, is_back=lambda: self.looks > looks or self.given_up)


class IsolatedRuntimes:
    """All versions that run beside, and the connection that holds them there.

    Args:
        call_s: the longest that one call may take, in seconds.
    """

    def __init__(self, host: RuntimeHost, *, call_s: float) -> None:
        self._host = host
        self._call_s = call_s
        self._control: Peer | None = None
        self._anew = False
        self._closing = False
        self._turn = threading.Lock()
        self._live: weakref.WeakSet[IsolatedRuntime] = weakref.WeakSet()
        self._dropped: SimpleQueue[str] = SimpleQueue()
        self._held: dict[str, int] = {}
        self._unloading: set[str] = set()
        """What nobody holds any more, and could not be unloaded yet."""
        self._wake: Callable[[], None] = lambda: None
        self.status: tuple[VersionStatus, ...] = ()
        """How each version was doing at the last look."""

    def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> IsolatedRuntime:
        """Return a runtime of its own process; it is unloaded there when the last reference to it is gone."""
        with self._turn:
            self._unload_dropped()
            wanted = Load(str(self._host.offer(folder, digest)), digest, name)
            try:
                loaded = self._loaded(wanted)
            except BaseException:
                if not self._held.get(digest):
                    self._host.withdraw(digest)
                raise
            self._unloading.discard(digest)
            self._held[digest] = self._held.get(digest, 0) + 1
        runtime = IsolatedRuntime(self, wanted, loaded, self._call_s)
        self._live.add(runtime)
        weakref.finalize(runtime, _dropped, runtime.idle, runtime.lines, self._dropped, digest).atexit = False
        return runtime

    def task(self) -> Task:
        """Return the task that does the rounds; whoever serves starts and stops it."""
        task = Task("isolated-runtime", lambda _: self.keep(), _ROUND_S)
        self._wake = task.wake
        return task

    def address(self, loaded: Loaded) -> Path:
        """Return where a version is asked."""
        return self._host.address(loaded.address)

    def lost(self, runtime: IsolatedRuntime) -> None:
        """Take note that a version's process does not answer."""
        runtime.close()
        self._wake()

    def hangs(self, runtime: IsolatedRuntime, loaded: Loaded, reason: str) -> None:
        """Have a process that hangs replaced; at once, beside whatever else the control connection does."""
        _log.warning("runtime.hangs", digest=runtime.load.digest, reason=reason)
        runtime.close()
        try:
            peer = self._host.connect()
        except ModelyardError:
            return
        try:
            peer.call(REPLACE, Replace(runtime.load.digest, loaded.process, reason), _CONTROL_S)
        except (OSError, EOFError, ModelyardError) as exc:
            _log.warning("runtime.not_replaced", kind=type(exc).__name__)
        finally:
            peer.close()
        self._wake()

    def keep(self) -> None:
        """Do one round: unload what nobody needs, load again what a restart has lost, look how each is doing."""
        with self._turn:
            self._unload_what_is_left()
            self._unload_dropped()
            live = list(self._live)
            if not live and self._control is None:
                self.status = ()
                return
            try:
                found = self._looked()
            except (Unavailable, Invalid) as exc:
                for runtime in live:
                    runtime.problem = exc.message
                return
            known = {version.digest: version for version in found.versions}
            anew, self._anew = self._anew, False
            for runtime in live:
                version = known.get(runtime.load.digest)
                # What was asked for over a connection that has ended is held by it no more.
                if version is None or anew:
                    self._load_again(runtime)
                elif version.state == "ready":
                    runtime.found_ready(Loaded(runtime.loaded.address, version.process))
                else:
                    runtime.problem = version.reason or "its process is started again"
                    runtime.given_up = version.state in ("quarantined", "refused")
            self.status = found.versions

    def check(self) -> str | None:
        """Return which version is away and why, for the health page."""
        for runtime in list(self._live):
            if runtime.problem:
                return f"{runtime.load.digest[:19]} ({runtime.name}): {runtime.problem}"
        return None

    def close(self) -> None:
        """Let go of everything. A version that loads just now is not waited for: whoever loads it hears of an end."""
        self._closing = True
        self._host.close()
        if (control := self._control) is not None:
            control.interrupt()
        with self._turn:
            if self._control is not None:
                self._control.close()
                self._control = None
            for runtime in list(self._live):
                runtime.close()

    def _load_again(self, runtime: IsolatedRuntime) -> None:
        try:
            runtime.found_ready(self._loaded(runtime.load))
        except (Invalid, Unavailable) as exc:
            runtime.problem = exc.message
            runtime.given_up = isinstance(exc, Invalid)
        else:
            _log.info("runtime.loaded_again", digest=runtime.load.digest, runtime=runtime.name)

    def _loaded(self, wanted: Load) -> Loaded:
        return decoded(self._said(LOAD, wanted, _LOAD_S), Loaded)

    def _looked(self) -> Status:
        return decoded(self._said(STATUS, (), _CONTROL_S), Status)

    def _unload_dropped(self) -> None:
        while True:
            try:
                digest = self._dropped.get_nowait()
            except Empty:
                return
            self._held[digest] -= 1
            if not self._held[digest]:
                del self._held[digest]
                self._unload(digest)

    def _unload_what_is_left(self) -> None:
        """Try again where unloading has failed: what is held for a process stays until it does not need it."""
        left, self._unloading = self._unloading, set()
        for digest in left - self._held.keys():
            self._unload(digest)

    def _unload(self, digest: str) -> None:
        if self._control is not None:
            try:
                self._said(UNLOAD, Unload(digest), _CONTROL_S)
                others = {version.digest for version in self._looked().versions}
            except ModelyardError as exc:
                _log.warning("runtime.not_unloaded", digest=digest, reason=exc.message)
                self._unloading.add(digest)
                return
            if digest in others:  # another server has it loaded there
                return
        self._host.withdraw(digest)

    def _said(self, kind: int, message: object, timeout_s: float) -> bytes:
        """Return the supervisor's answer over the control connection. One that was lost is opened again first."""
        if self._control is None or not self._control.is_open:
            if self._control is not None:
                self._control.close()
                self._control = None
            self._control = self._host.connect()
            self._anew = bool(self._held)
        if self._closing:
            self._control.close()
            self._control = None
            raise Unavailable("the inference runtime ends with this server", retry_after_s=1)
        try:
            return self._control.call(kind, message, timeout_s)
        except (OSError, EOFError) as exc:
            self._control.close()
            self._control = None
            raise Unavailable("the inference runtime has ended, and is started again", retry_after_s=1) from exc


def _dropped(idle: list[Peer], lines: list[Line], dropped: SimpleQueue[str], digest: str) -> None:
    """Take a note that nobody needs a version any more. It runs where the last request ends: on the event loop too."""
    _close_all(idle, lines)
    dropped.put(digest)


def _close_all(idle: list[Peer], lines: list[Line]) -> None:
    for connections in (idle, lines):
        while connections:
            connections.pop().close()
