"""Frames: bytes after bytes in a file or a body, each with its length and its sum, so that what is torn is seen.

A frame is the length of its payload and the payload's CRC-32C, each as a little-endian unsigned integer of 32 bits, and
the payload. CRC-32C (RFC 3720, appendix B.4) since processors have an instruction for it.

Law: ``payloads_in`` gives back what ``framed`` was given, and any prefix of frames gives a prefix of their payloads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from google_crc32c import value as crc32c

__all__ = ["FRAME_HEAD", "crc32c", "framed", "frames_of", "payloads_in"]

FRAME_HEAD = struct.Struct("<II")


def framed(payloads: Iterable[bytes]) -> bytes:
    """Return payloads as frames, one behind the other; none may be empty."""
    return b"".join(frames_of(payloads))


def frames_of(payloads: Iterable[bytes]) -> list[bytes]:
    """Return the same in its parts, for who writes them without laying them together: heads and payloads in turn."""
    parts: list[bytes] = []
    for payload in payloads:
        parts += (FRAME_HEAD.pack(len(payload), crc32c(payload)), payload)
    return parts


def payloads_in(frames: bytes) -> Iterator[bytes]:
    """Yield the payloads of frames.

    Raises:
        ValueError: the next one is not whole, or not what was written; says which of both.
    """
    offset, end = 0, len(frames)
    while offset < end:
        start = offset + FRAME_HEAD.size
        if start > end:
            raise ValueError("is cut off")
        length, crc = FRAME_HEAD.unpack_from(frames, offset)
        offset = start + length
        if not length or offset > end:
            raise ValueError("is empty, or cut off")
        payload = frames[start:offset]
        if crc32c(payload) != crc:
            raise ValueError("has another sum than was written with it: it is damaged")
        yield payload
