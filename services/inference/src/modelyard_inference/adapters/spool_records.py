"""The frame of a record in the spool: length and CRC-32 before the payload, so that a torn end is seen.

Law: reading what ``frame`` wrote gives the payload back, and any prefix of a file gives a prefix of its records.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable

__all__ = ["HEADER_BYTES", "RECORD_MAX_BYTES", "frame", "read_records", "sound_bytes"]

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size
RECORD_MAX_BYTES = 16 * 1024**2
"""Nothing that we write is as long; a longer length is damage."""
_CHUNK_BYTES = 256 * 1024


def frame(payloads: Iterable[bytes]) -> bytes:
    """Return payloads with their frames; none may be empty."""
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(_HEADER.pack(len(payload), zlib.crc32(payload)))
        parts.append(payload)
    return b"".join(parts)


def read_records(fd: int, offset: int, limit: int, *, most: int) -> tuple[list[bytes], int]:
    """Return up to most payloads from offset on, and the offset after the last.

    Args:
        limit: where the file ends for the reader. Nothing is returned past a record that is torn or damaged:
            then the offset stands still although the limit is not reached.
    """
    found: list[bytes] = []
    buffer, start = b"", offset
    while len(found) < most:
        position = offset - start
        if len(buffer) - position < HEADER_BYTES:
            buffer, start = _read(fd, offset, min(_CHUNK_BYTES, limit - offset)), offset
            position = 0
            if len(buffer) < HEADER_BYTES:
                break
        length, crc = _HEADER.unpack_from(buffer, position)
        if not 0 < length <= RECORD_MAX_BYTES or offset + HEADER_BYTES + length > limit:
            break
        if len(buffer) - position < HEADER_BYTES + length:
            wanted = max(_CHUNK_BYTES, HEADER_BYTES + length)
            buffer, start = _read(fd, offset, min(wanted, limit - offset)), offset
            position = 0
            if len(buffer) < HEADER_BYTES + length:
                break
        payload = buffer[position + HEADER_BYTES : position + HEADER_BYTES + length]
        if zlib.crc32(payload) != crc:
            break
        found.append(payload)
        offset += HEADER_BYTES + length
    return found, offset


def sound_bytes(fd: int, size: int) -> int:
    """Return how much of a file, from its start, is whole records."""
    offset = 0
    while True:
        found, offset = read_records(fd, offset, size, most=1000)
        if not found:
            return offset


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset) if size > 0 else b""
