"""The spool: records of what was answered, on disk until drift has them, and a sink where there is one.

They lie in files that are written from their beginning to their end, and written over when all have read them.

Each reader has its own place, so that none waits for another. When there is no room, the reader that is furthest back
loses its oldest file to those that are ahead; with all equally far back, what is new is dropped.

``append`` returns after ``write(2)``: what it took survives this process, though not yet a power failure; ``sync``
sees to that within a second. It never raises. What finds no room, meets a disk that refuses, or has no form in bytes,
is dropped and counted, and the prediction is answered all the same.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard_common.errors import Conflict, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.frames import frames_of

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.spool_blocks import BLOCK_ROWS, pack, pack_alike, rows_of, unpack
from modelyard_inference.adapters.spool_positions import Position, PositionFile
from modelyard_inference.adapters.spool_records import framed_bytes, records
from modelyard_inference.adapters.spool_runs import Run, Runs
from modelyard_inference.adapters.spool_segments import Segments, Write
from modelyard_inference.domain.records import Alike, Block

__all__ = ["DRIFT", "SINK", "Batch", "Blocks", "PayloadSpool", "SpoolState", "Written"]

_log = get_logger(__name__)
DRIFT, SINK = "drift", "sink"
"""Readers."""
_MOST_PARTS = 1000
"""The kernel takes 1024 at a time (IOV_MAX)."""
_POSITIONS = {DRIFT: "sent.json", SINK: "sent-sink.json"}


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to send, and the place after them.

    Attributes:
        ends: of each block that they were written in: how many records lie before its end, and where that is.
    """

    payloads: list[bytes]
    after: Position
    ends: list[tuple[int, int]]

    def after_first(self, count: int) -> Position | None:
        """Return the place after so many of them, or after as many whole blocks as they hold; None when none is."""
        offset = max((offset for records, offset in self.ends if records <= count), default=None)
        return None if offset is None else Position(self.after.segment, offset)


@dataclass(frozen=True, slots=True)
class Blocks:
    """What to send as it was written, and the place after it.

    Attributes:
        payloads: each with how many rows it has; 0 for what is no block of this version.
        more: there is more behind it.
    """

    payloads: list[tuple[bytes, int]]
    after: Position
    more: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Blocks in their frames, as they lie in a file, and the place after them.

    Attributes:
        more: there is more behind it.
    """

    frames: bytes
    after: Position
    more: bool


@dataclass(frozen=True, slots=True)
class SpoolState:
    """The spool in numbers."""

    pending_bytes: int
    size_bytes: int
    dropped: int
    problem: str | None


class PayloadSpool:
    """One process writes, and sends.

    Args:
        max_bytes: what unsent records may take on disk; holds at least two segments.
        segment_bytes: size after which a new file begins.
        readers: who gets all records.
        appended: called after each append, to wake the sender.
        write: for tests with a disk that fails.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        readers: Sequence[str] = (DRIFT,),
        appended: Callable[[], None] = lambda: None,
        write: Write = os.pwritev,
    ) -> None:
        self.root = root
        self._max_bytes = max_bytes - segment_bytes
        self.appended = appended
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._dropped = 0
        self._room = 0
        """Bytes for which there is room at least, since readers only make more: it is worked out when it is used up."""
        root.mkdir(parents=True, exist_ok=True)
        self._owner = _own(root)
        self._positions = {reader: PositionFile(root / _POSITIONS[reader]) for reader in readers}
        self._sent = {reader: file.read() for reader, file in self._positions.items()}
        places = [sent.segment for sent in self._sent.values()]
        self._segments = Segments(root, segment_bytes, first=min(places), begun=max(places), write=write)
        self._runs = Runs()

    @property
    def state(self) -> SpoolState:
        """How full it is."""
        with self._lock:
            return SpoolState(self._pending(DRIFT), self._segments.size_bytes, self._dropped, self._problem)

    def pending_bytes(self, reader: str) -> int:
        """Return how much a reader does not have yet."""
        with self._lock:
            return self._pending(reader)

    def check(self) -> str | None:
        """Return what is wrong: a health check."""
        return self._problem

    def append(self, blocks: Iterable[Block]) -> None:
        """Write the records of answers, or drop and count them."""
        payloads, rows = self._packed(blocks)
        if not payloads:
            return
        parts = frames_of(payloads)
        if len(parts) >= _MOST_PARTS:
            parts = [b"".join(parts)]
        size = sum(map(len, parts))
        with self._lock:
            if size > self._room and not self._make_room(size):
                self._drop(rows, "full", f"the spool is full: events are dropped until {self._slowest} takes some")
                return
            try:
                start = self._segments.put(parts, size)
            except OSError as exc:
                self._segments.give_up_room()  # whose disk is full needs it
                self._drop(rows, "disk", f"the spool cannot be written: {_reason(exc)}")
                return
            self._runs.wrote(self._segments.current, start, size, rows)
            self._room -= size
            if self._problem is not None:
                _log.info("spool.recovered", dropped=self._dropped)
                self._problem = None
        self.appended()

    def _packed(self, blocks: Iterable[Block]) -> tuple[list[bytes], int]:
        """Return blocks as bytes, and how many rows they have; without those that have no form in bytes."""
        if isinstance(blocks, Alike) and (alike := pack_alike(blocks)) is not None:
            return alike, blocks.rows
        payloads: list[bytes] = []
        rows = 0
        for one in blocks:
            try:
                payloads += [pack(part) for part in one.parts(BLOCK_ROWS)]
                rows += one.rows
            except Exception as exc:  # a runtime may answer anything, and others have their records here
                self._leave_out(one, exc)
        return payloads, rows

    def read(self, most: int, reader: str) -> Batch | None:
        """Return the next records that a reader did not get, each as JSON, or None when there are none.

        Raises:
            Unavailable: the disk does not give them now.
        """
        for position, size in self._unsent(reader):
            payloads: list[bytes] = []
            ends: list[tuple[int, int]] = []
            offset = position.offset
            for block in self._from(position, size):
                rows = unpack(block)
                if payloads and len(payloads) + len(rows) > most:
                    break
                payloads += rows
                offset += framed_bytes(block)
                ends.append((len(payloads), offset))
                if len(payloads) >= most:
                    break
            if ends:
                return Batch(payloads, Position(position.segment, offset), ends)
        return None

    def read_written(self, most_rows: int, most_bytes: int) -> Written | None:
        """Return what comes next and drift did not get, without a look at it; None where that needs one.

        Args:
            most_rows: of all blocks.
            most_bytes: of all blocks.
        """
        found = next(self._unsent(DRIFT), None)
        if found is None:
            return None
        position, size = found
        with self._lock:
            run = self._runs.at(position, most_rows, most_bytes)
        frames = b"" if run is None else self._bytes_of(run)
        if run is None or len(frames) < run.end - run.start:
            return None
        return Written(frames, Position(run.segment, run.end), run.end < size or run.segment < self._segments.current)

    def _bytes_of(self, run: Run) -> bytes:
        """Return what lies there: less where the file is gone, or cut, or cannot be read."""
        try:
            fd = os.open(self._segments.path(run.segment), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, run.end - run.start, run.start)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def read_blocks(self, most_rows: int, most_bytes: int, reader: str = DRIFT) -> Blocks | None:
        """Return what comes next and a reader did not get, as it was written, or None when there is nothing.

        Args:
            most_rows: of all blocks; more only where one has more by itself.
            most_bytes: as much, or what the last block has more.

        Raises:
            Unavailable: the disk does not give it now.
        """
        for position, size in self._unsent(reader):
            payloads: list[tuple[bytes, int]] = []
            rows, offset = 0, position.offset
            for payload in self._from(position, self._end_of_run(reader, position, size, most_rows, most_bytes)):
                count = rows_of(payload)
                rows += count or 1
                if payloads and rows > most_rows:
                    break
                payloads.append((payload, count))
                offset += framed_bytes(payload)
                if rows >= most_rows or offset - position.offset >= most_bytes:
                    break
            if payloads:
                more = offset < size or position.segment < self._segments.current
                return Blocks(payloads, Position(position.segment, offset), more)
        return None

    def _end_of_run(self, reader: str, position: Position, size: int, most_rows: int, most_bytes: int) -> int:
        """Return where to stop, so that what follows can be sent as it lies there; the end of the file otherwise."""
        if reader != DRIFT:
            return size
        with self._lock:
            run = self._runs.at(position, most_rows, most_bytes)
            start = None if run is not None else self._runs.next_start(position)
        if run is not None:
            return min(run.end, size)
        return size if start is None or start == position.offset else min(start, size)

    def _unsent(self, reader: str) -> Iterator[tuple[Position, int]]:
        """Yield where a reader's next records lie, and where that file ends; if asked again, after what is damaged."""
        seen: Position | None = None
        while True:
            with self._lock:
                position, current = self._sent[reader], self._segments.current
                sizes = dict(self._segments.sizes)
            later = [number for number in sizes if number > position.segment]
            size = sizes.get(position.segment, 0)
            if position.offset < size:
                if position != seen:  # or the file had to make room meanwhile
                    seen = position
                    yield position, size
                    continue
                metrics.SPOOL_DAMAGED.inc(size - position.offset)
                _log.error("spool.damaged", segment=position.segment, lost_bytes=size - position.offset)
                self.sent(Position(position.segment, size), reader)
                continue
            if not later or position.segment == current:
                return
            self.sent(Position(min(later), 0), reader)

    def _from(self, position: Position, size: int) -> Iterator[bytes]:
        """Yield payloads from a place on: none where the file is gone.

        Raises:
            Unavailable: it is there, and cannot be read now.
        """
        try:
            fd = os.open(self._segments.path(position.segment), os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield from records(fd, position.offset, size)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return
        except OSError as exc:  # or what is there would pass for damaged, and be lost
            raise Unavailable(f"the spool cannot be read: {_reason(exc)}") from exc

    def sent(self, position: Position, reader: str = DRIFT) -> None:
        """Remember that a reader has everything before a position, and be done with the files that all have read."""
        with self._lock:
            position = self._sent[reader] = max(position, self._sent[reader])  # it may have had to make room since
            self._runs.forget(self._sent[DRIFT])
            done = self._segments.forget(self._first)
        self._positions[reader].write(position)
        if done and self._keep(done[-1]):
            done.pop()
        self._segments.delete(done)

    def _keep(self, number: int) -> bool:
        """Keep a file that all have read, to be written over, where there is room for it; return whether it is."""
        spare = self._segments.emptied(number)
        if spare is None:
            return False
        _, size = spare
        with self._lock:
            if self._owner < 0 or self._room < size or not self._segments.keep(spare):
                return False
            self._room -= size
        return True

    @property
    def _first(self) -> int:
        """The oldest file that somebody has to read."""
        return min(sent.segment for sent in self._sent.values())

    def sync(self) -> None:
        """Bring what was written to the disk itself.

        Raises:
            OSError: of a file that the disk did not take; it is tried again while the file is written to.
        """
        with self._lock:
            dirty, complete = self._segments.unsynced()
        failed: dict[int, OSError] = {}
        for fd in dirty:
            try:
                os.fdatasync(fd)
            except OSError as exc:  # that of one file is not for the others to pay
                failed[fd] = exc
        for fd in complete:
            os.close(fd)
        with self._lock:
            self._segments.failed_to_sync(set(failed))
        for error in failed.values():
            raise error

    def close(self) -> None:
        """Sync and let go of the files; a second call does nothing."""
        with self._lock:
            owner, self._owner = self._owner, -1
            self._segments.close()
        try:
            self.sync()
        finally:
            for file in self._positions.values():
                file.close()
            if owner >= 0:
                os.close(owner)

    def _pending(self, reader: str) -> int:
        return self._bytes_after(self._sent[reader])

    def _bytes_after(self, place: Position) -> int:
        later = sum(size for number, size in self._segments.sizes.items() if number > place.segment)
        return later + self._bytes_left(place)

    def _bytes_left(self, place: Position) -> int:
        """Return how much of its own file lies after a place."""
        return max(0, self._segments.sizes.get(place.segment, 0) - place.offset)

    @property
    def _slowest(self) -> str:
        return min(self._sent, key=lambda reader: self._sent[reader])

    def _make_room(self, size: int) -> bool:
        """Return whether there is room for a block, where need be for what the reader furthest back loses.

        Where there would be none all the same, nobody loses anything.
        """
        room = self._max_bytes - self._bytes_after(min(self._sent.values())) - self._segments.kept_bytes
        if room >= size:
            self._room = room
            return True
        self._segments.give_up_room()
        sent, lost = dict(self._sent), dict.fromkeys(self._sent, 0)
        while True:
            slowest = min(sent, key=lambda reader: sent[reader])
            place = sent[slowest]
            room = self._max_bytes - self._bytes_after(place)
            if room >= size:
                break
            later = [number for number in self._segments.sizes if number > place.segment]
            if not later or not any(other.segment > place.segment for other in sent.values()):
                return False
            lost[slowest] += self._bytes_left(place)
            sent[slowest] = Position(min(later), 0)
        self._sent, self._room = sent, room
        for reader, lost_bytes in lost.items():
            if lost_bytes:
                metrics.READER_LOST.labels(reader).inc(lost_bytes)
                _log.error("spool.reader_lost", reader=reader, lost_bytes=lost_bytes)
        self._segments.delete(self._segments.forget(self._first))  # at once: a full disk needs their room for the block
        return True

    def _leave_out(self, block: Block, error: Exception) -> None:
        """Drop what cannot be written, on whatever disk: nothing is wrong with the spool."""
        _log.error("spool.block_unwritable", model=block.model, kind=type(error).__name__)
        metrics.EVENTS_DROPPED.labels("form").inc(block.rows)
        with self._lock:
            self._dropped += block.rows

    def _drop(self, count: int, reason: str, problem: str) -> None:
        metrics.EVENTS_DROPPED.labels(reason).inc(count)
        self._dropped += count
        if self._problem != problem:
            _log.error("spool.dropping", reason=problem)
        self._problem = problem


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _own(root: Path) -> int:
    """Return the descriptor that holds the lock. Raise Conflict when another process has it."""
    fd = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Conflict(f"another process uses the spool in {root}; give each server its own data_dir") from exc
    return fd
