"""Keeps one version's process: starts it, notices its end, starts it again after a pause, gives up for a while.

The process is the version's alone, so that a crash, a leak or a hang in one model is felt by that model only, and so
that unloading it gives all of its memory back.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, cast

from modelyard_bundle.isolated import INVALID, OK, Load, Loaded, VersionStatus
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.frames import BadFrame, read_frame
from modelyard_common.logs import get_logger

from modelyard_inference_runtime.crashes import CrashRecord

__all__ = ["Keeper", "Start"]

_log = get_logger(__name__)
_MOST_WORDS = 4096
_FIRST_ATTEMPTS = 2
"""A version whose process ends while it loads for the first time is refused after so many: one may be bad luck."""
_PAGE_BYTES = 4096

Start = Callable[[Load, Path], "subprocess.Popen[bytes]"]
"""Starts a version's process, which listens there, and says ``OK`` or why not in a frame on its standard output."""


class Keeper:
    """One version, and the thread that looks after its process.

    Args:
        address: its socket.
        crashes: what was held against it before.
    """

    def __init__(self, load: Load, address: Path, start: Start, crashes: CrashRecord, start_timeout_s: float) -> None:
        self.load = load
        self.crashes = crashes
        self._address = address
        self._start = start
        self._start_timeout_s = start_timeout_s
        self._state: Literal["starting", "ready", "resting", "quarantined", "refused"] = "starting"
        self._refusal = ""
        self._blame = ""
        self._restarts = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()

    def await_ready(self, timeout_s: float) -> Loaded:
        """Return where it is asked, once it can be.

        Raises:
            Invalid: it cannot be loaded, or ends too often; says why.
            Unavailable: it is not ready within the time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state not in ("starting", "resting"), timeout_s)
            if self._state in ("refused", "quarantined"):
                raise Invalid(self._words())
            if self._state != "ready" or self._process is None:
                raise Unavailable(self._words() or "it did not load in time", retry_after_s=1)
            return Loaded(self._address.name, self._process.pid)

    def replace(self, process: int, reason: str) -> None:
        """End the process if it is still this one."""
        with self._changed:
            if self._state == "ready" and self._process is not None and self._process.pid == process:
                self._blame = reason
                self._process.kill()

    def status(self) -> VersionStatus:
        """Return how it is doing."""
        with self._changed:
            pid = self._process.pid if self._process is not None and self._state == "ready" else 0
            return VersionStatus(
                digest=self.load.digest,
                runtime=self.load.runtime,
                state=self._state,
                reason="" if self._state == "ready" else self._words(),
                process=pid,
                restarts=max(self._restarts, 0),
                memory_bytes=_resident(pid) if pid else 0,
            )

    def close(self) -> None:
        """End the process for good."""
        with self._changed:
            self._closing.set()
            if self._process is not None:
                self._process.kill()
        self._thread.join(10)
        self._address.unlink(missing_ok=True)

    def _words(self) -> str:
        return self._refusal or self.crashes.sentence(time.monotonic())

    def _keep(self) -> None:
        served = False
        while not self._closing.is_set():
            self._become("starting")
            reason = self._run_once()
            if self._closing.is_set() or self._state == "refused":
                return
            served = served or self._served
            with self._changed:
                self.crashes = self.crashes.ended(time.monotonic(), reason)
                if not served and self._restarts + 1 >= _FIRST_ATTEMPTS:
                    self._refusal = f"its process ended while it loaded, because {reason}"
            now = time.monotonic()
            _log.warning("version.process_ended", digest=self.load.digest, reason=reason, served=served)
            if self._refusal:
                self._become("refused")
                return
            self._become("quarantined" if self.crashes.is_quarantined(now) else "resting")
            self._closing.wait(self.crashes.pause_s(now))

    def _run_once(self) -> str:
        """Run the process to its end; return why it ended."""
        self._served, self._blame = False, ""
        self._restarts += 1
        try:
            process = self._start(self.load, self._address)
        except OSError as exc:
            return f"no process can be started ({exc.strerror or type(exc).__name__})"
        with self._changed:
            self._process = process
            if self._closing.is_set():
                process.kill()
        watchdog = threading.Timer(self._start_timeout_s, self._late, [process])
        watchdog.daemon = True
        watchdog.start()
        try:
            kind, words = read_frame(cast(BinaryIO, process.stdout).read, _MOST_WORDS)
        except (EOFError, BadFrame, OSError):
            pass
        else:
            if kind == OK:
                self._served = True
                self._become("ready")
            elif kind == INVALID:
                self._refusal = words.decode(errors="replace")
                self._become("refused")
        finally:
            watchdog.cancel()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return self._blame or _ending(code)

    def _late(self, process: subprocess.Popen[bytes]) -> None:
        self._blame = f"it did not load within {self._start_timeout_s:.0f} s"
        process.kill()

    def _become(self, state: Literal["starting", "ready", "resting", "quarantined", "refused"]) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()


def _ending(code: int) -> str:
    if code >= 0:
        return "it ran out of memory" if code == OUT_OF_MEMORY else f"it ended by itself (code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"of {name}{hint}"


OUT_OF_MEMORY = 77
"""The code with which a process ends that may not have more memory."""


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0  # it has just ended, or there is no /proc
