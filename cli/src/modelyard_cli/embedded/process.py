"""One supervised process: started in a session of its own, found again after its supervisor was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from modelyard_common.trust import trust_for

from modelyard_cli.embedded.layout import Layout, Program

__all__ = ["Supervised", "is_ready", "living", "write_identity"]

_LOG_BYTES = 20 * 1024**2
_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 10.0
_HEALTHY_S = 30.0
_COLLECT_S = 1.0
"""A killed process ends at once, unless the kernel waits for a disk: then it is left to it."""
_SAME_BIRTH_S = 1.0
"""The kernel counts births in ticks from boot; the wall clock that they are told in may be stepped a little."""


class Supervised:
    """Keeps one program running.

    The process outlives this one: its pid and the moment of its birth are kept in a file, and whoever supervises
    next adopts it. A pid alone would not do, since numbers come back.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program = program
        self._layout = layout
        self._process: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        """Set when we started it ourselves: only then can its end be collected."""
        self._backoff_s = _FIRST_BACKOFF_S
        self._not_before = 0.0
        self._started = 0.0
        self._asked = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def adopt(self) -> bool:
        """Take over the process that an earlier supervisor started; return whether there is one."""
        self._process = living(self._layout.record(self.program.name))
        self._started = time.monotonic()
        return self._process is not None

    def is_elsewhere(self) -> bool:
        """Return whether the recorded process was told another port than this platform has for it."""
        record = _read(self._layout.record(self.program.name))
        return record is not None and record.get("port") != self.program.port

    def start(self) -> None:
        """Start the process; its output is appended to its log."""
        self._sweep()
        path = self._layout.log(self.program.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            self._child = subprocess.Popen(
                self.program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.program.environment),
                start_new_session=True,
            )
        self._process = psutil.Process(self._child.pid)
        write_identity(self._layout.record(self.program.name), self._process, port=self.program.port)
        self._started = time.monotonic()

    def is_running(self) -> bool:
        """Return whether the process runs; one of our children that ended is reaped."""
        if self._process is None:
            return False
        if self._child is not None:
            return self._child.poll() is None
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

    def ask_to_stop(self) -> None:
        """Ask the process to end, once: a second signal would cut its drain short."""
        if self._process is not None and not self._asked and self.is_running():
            self._asked = True
            with suppress(psutil.Error):
                self._process.terminate()

    def stop(self, grace_s: float) -> None:
        """Ask the process to end, and kill it when it does not within grace_s seconds."""
        if self._process is not None and self.is_running():
            self.ask_to_stop()
            deadline = time.monotonic() + grace_s
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._sweep()
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_COLLECT_S)
        self._layout.record(self.program.name).unlink(missing_ok=True)
        self._process = self._child = None
        self._asked = False

    def _sweep(self) -> None:
        """Kill what is left of the process's session: workers whose parent was killed still hold its port."""
        record = _read(self._layout.record(self.program.name))
        if record is None:
            return
        group, born = record["pid"], record["born"]
        for process in psutil.process_iter(["pid", "create_time"]):
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == group and process.info["create_time"] >= born - 1.0:
                    process.send_signal(signal.SIGKILL)


def write_identity(path: Path, process: psutil.Process, **more: int) -> None:
    """Keep who a process is, so that another process of the same number is never taken for it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": process.pid, "born": process.create_time(), **more}))
    part.replace(path)


def living(path: Path) -> psutil.Process | None:
    """Return the process whose identity was kept, if it is alive."""
    record = _read(path)
    if record is None:
        return None
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["born"]) < _SAME_BIRTH_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text())
        return {**record, "pid": int(record["pid"]), "born": float(record["born"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_ready(url: str) -> bool:
    """Return whether a probe answers 200."""
    try:
        return httpx.get(url, timeout=2.0, trust_env=False, verify=trust_for(url)).status_code == 200
    except httpx.HTTPError:
        return False
