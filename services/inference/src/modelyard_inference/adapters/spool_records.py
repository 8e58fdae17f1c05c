"""The records of a file of the spool: frames, as ``modelyard_contracts.frames`` has them.

Older versions wrote zlib's CRC-32 as their sum, which is still taken.

Law: reading what ``framed`` wrote gives the payloads back, and any prefix of a file gives a prefix of its records.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from itertools import islice

from modelyard_contracts.frames import FRAME_HEAD, crc32c

__all__ = ["HEADER_BYTES", "RECORD_MAX_BYTES", "framed_bytes", "read_records", "records", "sound_bytes"]

HEADER_BYTES = FRAME_HEAD.size
RECORD_MAX_BYTES = 16 * 1024**2
"""Nothing that we write is as long; a longer length is damage."""
_CHUNK_BYTES = 256 * 1024


def framed_bytes(payload: bytes) -> int:
    """Return how much of a file a payload takes."""
    return HEADER_BYTES + len(payload)


def records(fd: int, offset: int, limit: int) -> Iterator[bytes]:
    """Yield payloads from offset on.

    Args:
        limit: where the file ends for the reader. Nothing is yielded past a record that is torn or damaged.
    """
    buffer, start = b"", offset
    while True:
        position = offset - start
        if len(buffer) - position < HEADER_BYTES:
            buffer, start = _read(fd, offset, min(_CHUNK_BYTES, limit - offset)), offset
            position = 0
            if len(buffer) < HEADER_BYTES:
                return
        length, crc = FRAME_HEAD.unpack_from(buffer, position)
        if not 0 < length <= RECORD_MAX_BYTES or offset + HEADER_BYTES + length > limit:
            return
        if len(buffer) - position < HEADER_BYTES + length:
            wanted = max(_CHUNK_BYTES, HEADER_BYTES + length)
            buffer, start = _read(fd, offset, min(wanted, limit - offset)), offset
            position = 0
            if len(buffer) < HEADER_BYTES + length:
                return
        payload = buffer[position + HEADER_BYTES : position + HEADER_BYTES + length]
        if crc32c(payload) != crc and zlib.crc32(payload) != crc:
            return
        yield payload
        offset += HEADER_BYTES + length


def read_records(fd: int, offset: int, limit: int, *, most: int) -> tuple[list[bytes], int]:
    """Return up to most payloads from offset on, and the offset after the last."""
    found = list(islice(records(fd, offset, limit), most))
    return found, offset + sum(map(framed_bytes, found))


def sound_bytes(fd: int, size: int) -> int:
    """Return how much of a file, from its start, is whole records."""
    return sum(map(framed_bytes, records(fd, 0, size)))


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset) if size > 0 else b""
