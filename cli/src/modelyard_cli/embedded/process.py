"""One supervised process: started in a session of its own, found again after its supervisor was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress

import httpx
import psutil

from modelyard_cli.embedded.layout import Layout, Program

__all__ = ["Supervised"]

_LOG_BYTES = 20 * 1024**2
_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 10.0
_HEALTHY_S = 30.0


class Supervised:
    """Keeps one program running.

    The process outlives this one: its pid and the moment of its birth are kept in a file, and whoever supervises
    next adopts it. A pid alone would not do, since numbers come back.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program = program
        self._layout = layout
        self._process: psutil.Process | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        self._not_before = 0.0
        self._started = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def adopt(self) -> bool:
        """Take over the process that an earlier supervisor started; return whether there is one."""
        try:
            record = json.loads(self._layout.record(self.program.name).read_text())
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["born"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.Error):
            return False
        if not same:
            return False
        self._process = process
        self._started = time.monotonic()
        return True

    def start(self) -> None:
        """Start the process; its output is appended to its log."""
        self._sweep()
        path = self._layout.log(self.program.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            started = subprocess.Popen(
                self.program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.program.environment),
                start_new_session=True,
            )
        self._process = psutil.Process(started.pid)
        record = {"pid": started.pid, "born": self._process.create_time(), "port": self.program.port}
        target = self._layout.record(self.program.name)
        part = target.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.replace(target)
        self._started = time.monotonic()

    def is_running(self) -> bool:
        """Return whether the process runs; one of our children that ended is reaped."""
        if self._process is None:
            return False
        with suppress(ChildProcessError):
            os.waitpid(self._process.pid, os.WNOHANG)
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def keep_running(self) -> bool:
        """Start the process again if it ended, not faster than its back-off allows; return whether it was started."""
        now = time.monotonic()
        if self.is_running():
            if now - self._started > _HEALTHY_S:
                self._backoff_s = _FIRST_BACKOFF_S
            return False
        if self._process is not None:
            self._process = None
            self._not_before = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)
        if now < self._not_before:
            return False
        self.start()
        self.restarts += 1
        return True

    def is_ready(self) -> bool:
        """Return whether the process answers that it can work."""
        return is_ready(self._layout.url(self.program.name) + self.program.probe)

    def stop(self, grace_s: float) -> None:
        """Ask the process to end, and kill it when it does not within grace_s seconds."""
        if self._process is not None and self.is_running():
            with suppress(psutil.Error):
                self._process.terminate()
            deadline = time.monotonic() + grace_s
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._sweep()
        self._layout.record(self.program.name).unlink(missing_ok=True)
        self._process = None

    def _sweep(self) -> None:
        """Kill what is left of the process's session: workers whose parent was killed still hold its port."""
        try:
            record = json.loads(self._layout.record(self.program.name).read_text())
            group, born = int(record["pid"]), float(record["born"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        for process in psutil.process_iter(["pid", "create_time"]):
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == group and process.info["create_time"] >= born - 1.0:
                    process.send_signal(signal.SIGKILL)


def is_ready(url: str) -> bool:
    """Return whether a probe answers 200."""
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
