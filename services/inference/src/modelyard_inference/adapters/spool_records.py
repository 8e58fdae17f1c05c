"""The records of a file of the spool: frames, as ``modelyard_contracts.frames`` has them.

Older versions wrote zlib's CRC-32 as their sum, which is still taken.

Law: reading what ``framed`` wrote gives the payloads back, and any prefix of a file gives a prefix of its records.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from modelyard_contracts.frames import FRAME_HEAD, crc32c

__all__ = ["framed_bytes", "records", "sound_bytes"]

_HEAD_BYTES = FRAME_HEAD.size
_MOST_BYTES = 16 * 1024**2
"""Nothing that we write is as long; a longer length is damage."""
_CHUNK_BYTES = 256 * 1024


def framed_bytes(payload: bytes) -> int:
    """Return how much of a file a payload takes."""
    return _HEAD_BYTES + len(payload)


def records(fd: int, offset: int, limit: int) -> Iterator[bytes]:
    """Yield payloads from offset on.

    Args:
        limit: where the file ends for the reader. Nothing is yielded past a record that is torn or damaged.
    """
    buffer, start = b"", offset
    while True:
        position = offset - start
        if len(buffer) - position < _HEAD_BYTES:
            buffer, start = _read(fd, offset, min(_CHUNK_BYTES, limit - offset)), offset
            position = 0
            if len(buffer) < _HEAD_BYTES:
                return
        length, crc = FRAME_HEAD.unpack_from(buffer, position)
        if not 0 < length <= _MOST_BYTES or offset + _HEAD_BYTES + length > limit:
            return
        if len(buffer) - position < _HEAD_BYTES + length:
            wanted = max(_CHUNK_BYTES, _HEAD_BYTES + length)
            buffer, start = _read(fd, offset, min(wanted, limit - offset)), offset
            position = 0
            if len(buffer) < _HEAD_BYTES + length:
                return
        payload = buffer[position + _HEAD_BYTES : position + _HEAD_BYTES + length]
        if crc32c(payload) != crc and zlib.crc32(payload) != crc:
            return
        yield payload
        offset += _HEAD_BYTES + length


def sound_bytes(fd: int, size: int) -> int:
    """Return how much of a file, from its start, is whole records."""
    return sum(map(framed_bytes, records(fd, 0, size)))


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset) if size > 0 else b""
