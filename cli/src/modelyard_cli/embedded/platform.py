"""The supervisor: one platform on one data folder, started, watched, found again, stopped."""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO

import psutil
from modelyard_common.errors import Conflict, Unavailable

from modelyard_cli.embedded.layout import Layout, Program
from modelyard_cli.embedded.process import Supervised, living, write_identity

__all__ = ["Platform", "find_supervisor", "stop_leftovers", "taken"]

_POLL_S = 0.2
_START_S = 120.0
_STOP_ORDER = (("prometheus", "inference"), ("training", "registry"), ("drift", "mlflow"))
"""Inference first: what it still has to tell goes to drift, which must be there."""
_GRACE_S = 15.0
_MOVE = "; move all ports with --port-base"


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
            missing = [process for process in self.processes.values() if not self._adopt(process)]
            self._check_ports(missing)
        except BaseException:
            self._release()
            raise
        found = len(self.processes) - len(missing)
        if found:
            self._say(f"found {found} processes of this platform running; they stay as they are")
        for process in missing:
            process.start()

    def _adopt(self, process: Supervised) -> bool:
        """Take a running process over; one that was told other ports than ours is stopped, and is missing."""
        if not process.adopt():
            return False
        if not process.is_elsewhere():
            return True
        self._say(f"{process.program.name} runs on another port than --port-base asks for, and is moved")
        process.stop(_GRACE_S)
        return False

    def claim(self) -> None:
        """Take the folder. Raise Conflict when another supervisor has it."""
        self.layout.home.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._take_lock()

    def wait_ready(self, *names: str, timeout_s: float = _START_S, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until processes answer, or until told to stop; restarts those that die meanwhile.

        Raises:
            Unavailable: one of them does not come up; names its log.
        """
        waiting = list(names or self.processes)
        deadline = time.monotonic() + timeout_s
        while waiting and not stopped():
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
                # What was started a moment ago does not listen yet: whoever has the port is somebody else.
                self._say_taken(process.program)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Watch until told to stop."""
        while not stopped():
            self.watch()
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop all processes, training jobs too, and give the folder back."""
        _stop_in_order(self.processes, self.layout)
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
            raise Conflict(taken(self.layout, find_supervisor(self.layout))) from exc
        self._lock = handle
        write_identity(self.layout.state, psutil.Process(), port_base=self.layout.port_base)

    def _release(self) -> None:
        if self._lock is not None:
            # In this order: who finds the lock free may write the state of its own.
            self.layout.state.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _check_ports(self, missing: list[Supervised]) -> None:
        taken = [_owned(process.program) for process in missing if not _is_free(process.program.port)]
        if taken:
            raise Conflict("; ".join(taken) + _MOVE)

    def _say_taken(self, program: Program) -> None:
        if not _is_free(program.port):
            self._say(_owned(program) + _MOVE)


def find_supervisor(layout: Layout) -> int | None:
    """Return the process that supervises a folder, if one does."""
    process = living(layout.state)
    return process.pid if process is not None else None


def taken(layout: Layout, owner: int | None) -> str:
    """Return the sentence that refuses a second platform on a folder."""
    who = f" (process {owner})" if owner else ""
    return f"a platform already runs on {layout.home}{who}; stop it with `modelyard down`, or use another --data-dir"


def stop_leftovers(layout: Layout) -> int:
    """Stop processes that a killed supervisor left behind; return how many there were."""
    programs = layout.programs(prometheus="prometheus")
    left = {program.name: process for program in programs if (process := Supervised(program, layout)).adopt()}
    _stop_in_order(left, layout)
    return len(left)


def _stop_in_order(processes: Mapping[str, Supervised], layout: Layout) -> None:
    for group in _STOP_ORDER:
        asked = [processes[name] for name in group if name in processes]
        for process in asked:
            process.ask_to_stop()
        for process in asked:
            process.stop(_GRACE_S)
    _stop_jobs(layout)


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


def _owned(program: Program) -> str:
    return f"port {program.port} ({program.name}) is taken by {_owner(program.port)}"


def _owner(port: int) -> str:
    """Return who has a port, as a server or as the near end of a connection, as well as this user may know."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"
