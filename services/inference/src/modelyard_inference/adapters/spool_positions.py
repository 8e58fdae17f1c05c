"""How far a reader of the spool has come, in a small file of its own.

It is written over in place, and always as long: a file that took its place would be brought to the disk at each
renaming (ext4's ``auto_da_alloc``), which took longer than to send what was read. One write of so few bytes is there or
not when the process is killed, and lies in one sector. Where it cannot be read after all, a reader begins anew: what
was sent is sent again, and whoever takes it knows it by its id.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
from modelyard_common.logs import get_logger

__all__ = ["Position", "PositionFile"]

_log = get_logger(__name__)
_BYTES = 128
"""More than two numbers of 64 bits and their names take."""


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in the spool: everything before it was sent."""

    segment: int = 0
    offset: int = 0


class PositionFile:
    """Keeps the position of one reader, until it is closed: what ends late does not write over a later owner's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd = -1
        self._closed = False

    def read(self) -> Position:
        """Return what was written last; the beginning where there is nothing, or nothing that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Position)
        except FileNotFoundError:
            return Position()
        except (OSError, msgspec.DecodeError) as exc:
            _log.error("spool.position_unreadable", kind=type(exc).__name__)
            return Position()

    def write(self, position: Position) -> None:
        """Replace what is kept. Where that fails it is logged: no more is lost than the knowledge of what was sent."""
        with self._lock:
            if self._closed:
                return
            try:
                if self._fd < 0:
                    self._fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640)
                os.pwrite(self._fd, msgspec.json.encode(position).ljust(_BYTES), 0)
            except OSError as exc:
                _log.warning("spool.position_not_written", kind=type(exc).__name__)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
