"""The files of a spool, written one after the other.

A file that everybody is done with is written over instead of a new one: bytes that are new to a file cost the kernel
several times as much as those that take the place of others (ADR 37). So behind what was written there may lie what the
file held before, and an empty head stands between them, where a reader stops. No file but the newest has such a rest.
After a power failure some of it may turn up as records all the same; they were sent, and are told by their ids.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from modelyard_common.logs import get_logger
from modelyard_contracts.frames import FRAME_HEAD

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.spool_records import sound_bytes

__all__ = ["Segments", "Write"]

_log = get_logger(__name__)
_SUFFIX = ".events"
_END = bytes(FRAME_HEAD.size)
"""No frame is empty."""

Write = Callable[[int, Sequence[bytes], int], int]
"""``os.pwritev``."""


class Segments:
    """Numbered files in a folder. Not thread safe, save what says so.

    Args:
        segment_bytes: size after which a new file begins.
        first: files with lower numbers are done with.
        begun: the highest number that is known to have been used.

    Attributes:
        sizes: of what was written, by number.
        current: the number that is written to, or will be.
    """

    def __init__(self, root: Path, segment_bytes: int, *, first: int, begun: int, write: Write = os.pwritev) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._write = write
        self.sizes = self._found(first)
        self.current = max([*self.sizes, begun]) + 1
        self._fd: int | None = None
        self._extent = 0
        """How long the current file is, with what it held before."""
        self._spare: tuple[Path, int] | None = None
        """A file to be written over, and how long it is."""
        self._dirty: set[int] = set()
        self._retired: dict[int, int] = {}
        """Descriptors of files that are complete and perhaps not on the disk itself, with their numbers."""

    @property
    def size_bytes(self) -> int:
        """What the files take on disk."""
        return sum(self.sizes.values()) + self.kept_bytes

    @property
    def kept_bytes(self) -> int:
        """What of it is there to be written over."""
        return self._rest + (self._spare[1] if self._spare is not None else 0)

    @property
    def _rest(self) -> int:
        return max(0, self._extent - self.sizes[self.current]) if self._fd is not None else 0

    def path(self, number: int) -> Path:
        """Return where a file lies."""
        return self._root / f"{number:012d}{_SUFFIX}"

    def put(self, parts: Sequence[bytes], size: int) -> int:
        """Write whole records; return where in the current file they begin.

        Args:
            size: of all parts together.

        Raises:
            OSError: they are not written, and neither is a part of them between others.
        """
        fd = self._open()
        start = self.sizes[self.current]
        end = start + size
        try:
            if end >= self._extent:
                written = self._write(fd, parts, start)
            else:
                written = self._write(fd, (*parts, _END), start) - len(_END)
            if written != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the last bytes that fitted
        except OSError:
            if not self._cut():  # or a torn record would lie between whole ones
                self._retire()
                self.current += 1
            raise
        self._dirty.add(fd)
        self.sizes[self.current] = end
        return start

    def give_up_room(self) -> None:
        """Take nothing on disk but what was written."""
        if self._spare is not None:
            (path, _), self._spare = self._spare, None
            _unlink(path)
        if self._rest:
            self._cut()

    def forget(self, first: int) -> list[int]:
        """Forget the files with lower numbers, and return them."""
        done = [number for number in self.sizes if number < first]
        for number in done:
            del self.sizes[number]
        return done

    def delete(self, numbers: Sequence[int]) -> None:
        """Delete files that were forgotten; from any thread."""
        for number in numbers:
            _unlink(self.path(number))

    def emptied(self, number: int) -> tuple[Path, int] | None:
        """Return a file that was forgotten, without its records, and how long it is; None where that fails, or it is
        too short to be of use. From any thread."""
        path = self.path(number)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                if size >= self._segment_bytes and os.pwrite(fd, _END, 0) == len(_END):
                    return path, size
            finally:
                os.close(fd)
        except OSError:
            pass
        return None

    def keep(self, spare: tuple[Path, int]) -> bool:
        """Write over an emptied file when the next one is to begin; return False where there is one already."""
        if self._spare is not None:
            return False
        self._spare = spare
        return True

    def unsynced(self) -> tuple[set[int], list[int]]:
        """Return the descriptors of what has to be brought to the disk, and those to be closed then."""
        retired, self._retired = self._retired, {}
        dirty, self._dirty = self._dirty, set()
        # What nobody waits for any more is not worth the disk's time.
        return dirty - {fd for fd, number in retired.items() if number not in self.sizes}, list(retired)

    def failed_to_sync(self, fds: set[int]) -> None:
        """Try these again, unless they are closed."""
        self._dirty |= fds & {self._fd, *self._retired}

    def close(self) -> None:
        """Write no more, and keep nothing on disk but what was written."""
        self.give_up_room()
        self._retire()

    def _open(self) -> int:
        if self._fd is not None and self.sizes[self.current] < self._segment_bytes:
            return self._fd
        number = self.current if self._fd is None else self.current + 1
        if self._spare is not None:
            (path, _), self._spare = self._spare, None
            try:
                path.rename(self.path(number))
            except OSError:
                _unlink(path)
        fd = os.open(self.path(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        extent = os.fstat(fd).st_size
        self._retire()
        self._fd, self.current, self._extent = fd, number, extent
        self.sizes.setdefault(number, 0)
        return fd

    def _retire(self) -> None:
        if self._fd is not None:
            if self._rest:
                self._cut()
            self._retired[self._fd] = self.current
            self._fd, self._extent = None, 0

    def _cut(self) -> bool:
        """Cut what the current file has besides what was written; return whether it is as long now."""
        assert self._fd is not None  # noqa: S101  # there is one that is written to
        size = self.sizes[self.current]
        with suppress(OSError):
            os.ftruncate(self._fd, size)
        self._extent = os.fstat(self._fd).st_size
        return self._extent == size

    def _found(self, first: int) -> dict[int, int]:
        """Return the sizes of the files that are there, the newest cut at its last whole record."""
        files = {int(path.stem): path for path in self._root.glob(f"*{_SUFFIX}") if path.stem.isdigit()}
        sizes = {}
        for number, path in sorted(files.items()):
            if number < first:
                path.unlink(missing_ok=True)
                continue
            sizes[number] = path.stat().st_size
        if sizes:
            newest = max(sizes)
            sizes[newest] = _mended(files[newest], sizes[newest])
        return sizes


def _mended(path: Path, size: int) -> int:
    """Cut a file at its last whole record; return its size."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        whole = sound_bytes(fd, size)
        if whole < size:
            if os.pread(fd, len(_END), whole) != _END:
                _log.warning("spool.torn_end", segment=int(path.stem), lost_bytes=size - whole)
                metrics.SPOOL_DAMAGED.inc(size - whole)
            os.ftruncate(fd, whole)
    finally:
        os.close(fd)
    return whole


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
