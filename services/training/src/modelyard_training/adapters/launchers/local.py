"""Launches jobs as processes of this machine, each in a session of its own, and finds them again after a restart.

What it knows is in the attempts' folders, so any service process on the same data folder can go on from there. Jobs
outlive the service. It limits a job's threads, and makes it nice to inference beside it; it does not limit its
memory: that takes a container.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelyard_common.errors import Invalid, Unavailable

from modelyard_training.adapters.launchers import sessions
from modelyard_training.adapters.launchers.attempt import Attempt, write_durably
from modelyard_training.adapters.launchers.cores import thread_limits
from modelyard_training.adapters.launchers.endings import ending
from modelyard_training.adapters.launchers.log_pages import page
from modelyard_training.adapters.launchers.shim import ALREADY_STARTED
from modelyard_training.domain.ports import Job, LogPage
from modelyard_training.domain.supervision import Presence, Sighting

__all__ = ["LocalLauncher"]

_SHIM = "modelyard_training.adapters.launchers.shim"
_SHIM_TRIES = 3
_LEAST_FREE_BYTES = 64 * 2**20


class LocalLauncher:
    """Starts ``command <work_dir>/job.json`` for each attempt.

    Args:
        root: the folder of all runs.
        command: the program and its first arguments.
        environment: all that a job's environment has, besides HOME, TMPDIR and the thread limits.
        niceness: added to the job's, 0 to 19.
    """

    def __init__(
        self, root: Path, *, command: Sequence[str], environment: Mapping[str, str], niceness: int = 5
    ) -> None:
        self._root = root.absolute()
        self._command = list(command)
        self._environment = dict(environment)
        self._niceness = niceness
        self._shims: dict[tuple[str, int], int] = {}
        self._failed_starts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def launch(self, job: Job) -> None:
        """Start an attempt; see the port."""
        attempt = self._attempt(job.run, job.attempt)
        with self._lock:
            self._reap()
            if (job.run, job.attempt) in self._shims or attempt.process_file.exists():
                return
            try:
                self._prepare(attempt, job)
                self._shims[job.run, job.attempt] = self._spawn(attempt, self._environment_of(attempt, job))
            except OSError as exc:
                raise Unavailable(f"the training process could not be started: {exc.strerror}") from exc

    def sight(self, run: str, attempt: int) -> Sighting:
        """Return how an attempt stands; see the port."""
        with self._lock:
            self._reap()
            booting = (run, attempt) in self._shims
            failed_starts = self._failed_starts.get((run, attempt), 0)
        files = self._attempt(run, attempt)
        if not files.process_file.exists():
            if failed_starts >= _SHIM_TRIES:
                return Sighting(Presence.ENDED, 1, "an error before it began")
            return Sighting(Presence.ALIVE if booting else Presence.ABSENT)
        # The lock first, the record second: a process that ends between the two looks is seen as ended.
        alive = files.is_alive()
        ended = files.read(files.ended_file)
        if ended is not None:
            return ending(int(ended["code"]))
        return Sighting(Presence.ALIVE) if alive else Sighting(Presence.KILLED)

    def terminate(self, run: str, attempt: int) -> None:
        """Ask an attempt to end; see the port."""
        files = self._attempt(run, attempt)
        if files.terminated_file.exists():
            return
        # The shim starts within a blink; the next time it can be asked.
        if files.process_file.exists() and self._signal(files, signal.SIGTERM):
            files.terminated_file.touch()

    def kill(self, run: str, attempt: int) -> None:
        """End an attempt with all that it started, or make sure that it never starts; see the port."""
        files = self._attempt(run, attempt)
        if files.process_file.exists():
            self._signal(files, signal.SIGKILL)
            return
        with self._lock:
            shim = self._shims.get((run, attempt))
            if shim is not None:
                with suppress(ProcessLookupError):
                    os.kill(shim, signal.SIGKILL)
        files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.locked() as free:
            if free and not files.process_file.exists():
                write_durably(files.process_file, {"pid": 0, "create_time": 0.0})

    def result(self, run: str, attempt: int) -> Mapping[str, Any] | None:
        """Return the report that an attempt left behind; see the port."""
        files = self._attempt(run, attempt)
        return files.read(files.result_file)

    def log(self, run: str, *, offset: int = 0, limit_bytes: int = 1 << 20) -> LogPage:
        """Return a piece of the run's log, cut between characters; see the port."""
        path = self._attempt(run, 1).log_file
        try:
            with path.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                start = max(0, size + offset) if offset < 0 else min(offset, size)
                handle.seek(start)
                data = handle.read(limit_bytes)
        except FileNotFoundError:
            return LogPage("", max(0, offset))
        return page(data, start, from_end=offset < 0)

    def tidy(self, run: str) -> None:
        """Remove what the attempts of a run worked with; records and the log stay."""
        for folder in self._run_folder(run).glob("attempt-*"):
            kept = Attempt(folder).kept
            for entry in folder.iterdir():
                if entry.name in kept:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def check(self) -> str | None:
        """Return what keeps jobs from being started; see the port."""
        if shutil.which(self._command[0]) is None:
            return f"{self._command[0]} is not a program"
        if not os.access(self._root, os.W_OK):
            return f"the folder for jobs, {self._root}, cannot be written to"
        free = shutil.disk_usage(self._root).free
        return f"only {free // 2**20} MiB are free for jobs" if free < _LEAST_FREE_BYTES else None

    def _run_folder(self, run: str) -> Path:
        if not run.replace("-", "").isalnum():
            raise Invalid(f"{run[:80]!r} is not the id of a run")
        return self._root / run

    def _attempt(self, run: str, attempt: int) -> Attempt:
        return Attempt(self._run_folder(run) / f"attempt-{attempt}")

    def _prepare(self, attempt: Attempt, job: Job) -> None:
        (attempt.folder / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(attempt.job_file, {**job.document, "work_dir": str(attempt.folder)})
        command = [*self._command, str(attempt.job_file)]
        write_durably(attempt.launch_file, {"command": command, "niceness": self._niceness})

    def _environment_of(self, attempt: Attempt, job: Job) -> dict[str, str]:
        return {
            **self._environment,
            **thread_limits(job.cpu),
            "HOME": str(attempt.folder),
            "TMPDIR": str(attempt.folder / "tmp"),
        }

    @staticmethod
    def _spawn(attempt: Attempt, environment: Mapping[str, str]) -> int:
        """Start the shim; return its process id. Its own words, if any, go to the run's log."""
        arguments = [sys.executable, "-P", "-m", _SHIM, str(attempt.folder)]
        log = os.open(attempt.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, nowhere, 0), *((os.POSIX_SPAWN_DUP2, log, to) for to in (1, 2))]
            return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
        finally:
            os.close(log)
            os.close(nowhere)

    def _reap(self) -> None:
        """Bury the shims that have ended; those of an earlier process were buried by init."""
        for key, pid in list(self._shims.items()):
            try:
                done, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                done, status = pid, 0
            if done == 0:
                continue
            del self._shims[key]
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, ALREADY_STARTED) and not self._attempt(*key).process_file.exists():
                self._failed_starts[key] = self._failed_starts.get(key, 0) + 1

    @staticmethod
    def _signal(files: Attempt, number: signal.Signals) -> int:
        record = files.read(files.process_file)
        if record is None or not record["pid"]:
            return 0
        return sessions.send(number, int(record["pid"]), float(record["create_time"]), ours=files.is_alive())
