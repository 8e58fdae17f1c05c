"""The process between the service and a job: it makes sure that an attempt starts once, and records how it ends.

Started as ``python -m modelyard_training.adapters.launchers.shim <folder of the attempt>``. It takes the attempt's
lock, gives up if the attempt was started before, leads a session of its own, writes down who it is, and only then
starts the job. The job inherits the lock, so that the attempt counts as alive until the last of the two is gone. The
shim knows nothing of the service, and outlives it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from modelyard_training.adapters.launchers.attempt import Attempt, take, write_durably

__all__ = ["ALREADY_STARTED", "main"]

ALREADY_STARTED = 75
"""Exit code: somebody else has this attempt (``EX_TEMPFAIL``)."""

# A look at the lock holds it for microseconds; longer than this it is held by the attempt itself.
_LOCK_TRIES = 40
_LOCK_PAUSE_S = 0.05


class _Stops:
    """Remembers that somebody asked the attempt to end; the job gets the signal itself."""

    asked = False

    def __call__(self, number: int, frame: object) -> None:
        del number, frame
        self.asked = True


def main(folder: Path) -> int:
    """Run one attempt to its end; return this process's exit code."""
    attempt = Attempt(folder)
    lock = attempt.open_lock()
    if not _take_patiently(lock) or attempt.process_file.exists():
        return ALREADY_STARTED
    stops = _Stops()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A handler, not SIG_IGN: handlers go back to their defaults in the job, ignored signals would stay ignored.
        signal.signal(number, stops)
    if os.getsid(0) != os.getpid():
        os.setsid()
    launch = attempt.read(attempt.launch_file)
    if launch is None:
        return 1
    write_durably(attempt.process_file, {"pid": os.getpid(), "create_time": psutil.Process().create_time()})
    code = 128 + signal.SIGTERM if stops.asked else _run(attempt, launch["command"], int(launch["niceness"]), lock)
    write_durably(attempt.ended_file, {"code": code, "at": time.time()})
    _end_the_rest()
    return 0


def _take_patiently(lock: int) -> bool:
    for _ in range(_LOCK_TRIES):
        if take(lock):
            return True
        time.sleep(_LOCK_PAUSE_S)
    return False


def _run(attempt: Attempt, command: list[str], niceness: int, lock: int) -> int:
    """Run the job; return its exit code, negative for a signal."""
    with suppress(OSError):
        os.nice(niceness)
    with attempt.log_file.open("ab") as log:
        try:
            job = subprocess.Popen(
                command, cwd=attempt.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock,)
            )
        except OSError as exc:
            log.write(f"the training process could not be started: {exc}\n".encode())
            return 127
    return job.wait()


def _end_the_rest() -> None:
    """End what the job started and left behind: it belongs to this session and to nobody else."""
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if process.pid != os.getpid() and os.getsid(process.pid) == os.getpid():
                process.kill()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
