"""The supervisor: one platform on one data folder, started, watched, found again, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import psutil
from modelyard_common.errors import Conflict, Unavailable

from modelyard_cli.embedded.layout import Layout
from modelyard_cli.embedded.process import Supervised

__all__ = ["Platform", "find_supervisor", "port_owner", "stop_leftovers"]

_POLL_S = 0.2
_START_S = 120.0
_STOP_ORDER = ("prometheus", "inference", "training", "registry", "drift", "mlflow")
"""Inference first: what it still has to tell goes to drift, which must be there."""
_GRACE_S = 15.0


class Platform:
    """All processes of one data folder. Only one object in the world may be entered for a folder at a time.

    Args:
        layout: folder and ports.
        say: told what happens, a line at a time.
    """

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self.layout = layout
        self._say = say
        self._lock: IO[str] | None = None
        binary = shutil.which("prometheus")
        self.processes = {program.name: Supervised(program, layout) for program in layout.programs(prometheus=binary)}
        self._has_prometheus = binary is not None

    def start(self) -> None:
        """Take the folder, adopt what runs, start the rest.

        Raises:
            Conflict: another supervisor has the folder, or a port is taken; says by whom.
        """
        self.claim()
        try:
            self.layout.prepare(prometheus=self._has_prometheus)
            missing = [process for process in self.processes.values() if not process.adopt()]
            self._check_ports(missing)
        except BaseException:
            self._release()
            raise
        found = len(self.processes) - len(missing)
        if found:
            self._say(f"found {found} processes of this platform running; they stay as they are")
        state = {"pid": os.getpid(), "port_base": self.layout.port_base}
        self.layout.state.write_text(json.dumps(state))
        for process in missing:
            process.start()

    def claim(self) -> None:
        """Take the folder. Raise Conflict when another supervisor has it."""
        self.layout.home.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._take_lock()

    def wait_ready(self, *names: str, timeout_s: float = _START_S) -> None:
        """Wait until processes answer; restarts those that die meanwhile.

        Raises:
            Unavailable: one of them does not come up; names its log.
        """
        waiting = list(names or self.processes)
        deadline = time.monotonic() + timeout_s
        while waiting:
            self.watch()
            waiting = [name for name in waiting if not self.processes[name].is_ready()]
            if waiting and time.monotonic() > deadline:
                logs = ", ".join(str(self.layout.log(name)) for name in waiting)
                raise Unavailable(f"{', '.join(waiting)} did not come up within {timeout_s:.0f} s; see {logs}")
            if waiting:
                time.sleep(_POLL_S)

    def watch(self) -> None:
        """Look at all processes once, and start again what ended."""
        for name, process in self.processes.items():
            if process.keep_running():
                self._say(f"{name} had ended and was started again; its log is {self.layout.log(name)}")

    def run(self, stopped: Callable[[], bool]) -> None:
        """Watch until told to stop."""
        while not stopped():
            self.watch()
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop all processes, training jobs too, and give the folder back."""
        for name in _STOP_ORDER:
            if name in self.processes:
                self.processes[name].stop(_GRACE_S)
                if name == "training":
                    _stop_jobs(self.layout)
        self._release()

    def abandon(self) -> None:
        """Give the folder back and leave the processes running."""
        self._release()

    def _take_lock(self) -> None:
        handle = self.layout.lock.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            handle.close()
            owner = find_supervisor(self.layout)
            who = f" (process {owner})" if owner else ""
            raise Conflict(
                f"a platform already runs on {self.layout.home}{who}; "
                "stop it with `modelyard down`, or use another --data-dir"
            ) from exc
        self._lock = handle

    def _release(self) -> None:
        if self._lock is not None:
            self.layout.state.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _check_ports(self, missing: list[Supervised]) -> None:
        taken = [
            f"port {process.program.port} ({process.program.name}) is taken by {port_owner(process.program.port)}"
            for process in missing
            if not _is_free(process.program.port)
        ]
        if taken:
            raise Conflict("; ".join(taken) + "; move all ports with --port-base")


def find_supervisor(layout: Layout) -> int | None:
    """Return the process that supervises a folder, if one does."""
    try:
        pid = int(json.loads(layout.state.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if psutil.pid_exists(pid) else None


def stop_leftovers(layout: Layout) -> int:
    """Stop processes that a killed supervisor left behind; return how many there were."""
    found = 0
    programs = {program.name: program for program in layout.programs(prometheus="prometheus")}
    for name in _STOP_ORDER:
        process = Supervised(programs[name], layout)
        if process.adopt():
            found += 1
            process.stop(_GRACE_S)
    _stop_jobs(layout)
    return found


def _stop_jobs(layout: Layout) -> None:
    """End training jobs of this folder: they outlive their service, but not the platform."""
    mark = str((layout.home / "training" / "runs").absolute())
    jobs = []
    for process in psutil.process_iter(["cmdline"]):
        if any(mark in part for part in process.info["cmdline"] or []):
            jobs.append(process)
    for process in jobs:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(jobs, timeout=5)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def port_owner(port: int) -> str:
    """Return who listens on a port, as well as this user may know."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"
