"""The folder of one attempt: which files it has, how they are written, and who holds its lock.

::

    <root>/<run>/log.txt              what all attempts of the run wrote
    <root>/<run>/attempt-1/
        job.json                      what the job is to do
        launch.json                   how its process is started
        lock                          held (flock) while any process of the attempt lives
        process.json                  written before the job's process starts: this attempt is started for ever
        ended.json                    how the job's process ended
        exit.json                     the job's last report, when it could not deliver it (written by the job)

The lock says who lives, and ``process.json`` who has lived: with both, a second start of an attempt is impossible,
whatever is killed when. Only the standard library is used here, since the shim has to start fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Attempt", "take", "write_durably"]


def write_durably(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file all or nothing, and return when it is on the disk."""
    # Several services may write the same file at the same time; each its own draft.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with draft.open("w", encoding="utf-8") as handle:
        json.dump(document, handle)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's folder."""

    folder: Path

    @property
    def job_file(self) -> Path:
        """What the job is to do."""
        return self.folder / "job.json"

    @property
    def launch_file(self) -> Path:
        """How its process is started."""
        return self.folder / "launch.json"

    @property
    def log_file(self) -> Path:
        """What it writes; shared by the attempts of a run."""
        return self.folder.parent / "log.txt"

    @property
    def process_file(self) -> Path:
        """Which process it got; its being there means that the attempt is never started again."""
        return self.folder / "process.json"

    @property
    def ended_file(self) -> Path:
        """How its process ended."""
        return self.folder / "ended.json"

    @property
    def result_file(self) -> Path:
        """The last report of a job that could not deliver it."""
        return self.folder / "exit.json"

    @property
    def terminated_file(self) -> Path:
        """It has been asked to end."""
        return self.folder / "terminated"

    @property
    def kept(self) -> frozenset[str]:
        """The names of the files that stay when the run is over."""
        return frozenset({"job.json", "lock", "process.json", "ended.json", "exit.json"})

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return a JSON file of this folder; None when it is not there or is not an object."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Try to take the lock without waiting; give whether it was taken, and let it go at the end."""
        handle = self.open_lock()
        try:
            yield take(handle)
        finally:
            os.close(handle)

    def open_lock(self) -> int:
        """Return a file descriptor of the lock, not taken yet."""
        return os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)

    def is_alive(self) -> bool:
        """Return whether a process of this attempt holds the lock. The look is too short to get in a shim's way."""
        with self.locked() as free:
            return not free


def take(handle: int) -> bool:
    """Take an open lock without waiting; return whether it was free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
