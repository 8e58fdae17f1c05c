"""How HTTP/2 writes frames, numbers and headers, and the codes by which it tells what went wrong."""

from __future__ import annotations

import struct
from enum import IntEnum

from modelyard_inference.api.grpc.calls import Pairs

__all__ = ["FRAME", "NUMBER", "ErrorCode", "Http2Error", "block_of", "frame", "number", "unpadded"]

FRAME = struct.Struct(">HBBBI")
"""What is ahead of each: its length in three bytes, its kind, its flags, its stream."""
NUMBER = struct.Struct(">I")


class ErrorCode(IntEnum):
    """As the protocol numbers them."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Http2Error(Exception):
    """The caller has broken the protocol, and its connection is to be ended."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def block_of(pairs: Pairs) -> bytes:
    """Return headers as they are sent: each in full, so that nobody has to keep a table for them."""
    parts: list[bytes] = []
    for name, value in pairs:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(size: int) -> bytes:
    """Return a number with a prefix of seven bits (RFC 7541, 5.1)."""
    if size < 0x7F:
        return bytes((size,))
    written, size = bytearray((0x7F,)), size - 0x7F
    while size > 0x7F:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame as it travels."""
    return FRAME.pack(len(body) >> 8, len(body) & 0xFF, kind, flags, stream) + body


def unpadded(body: bytes) -> bytes:
    """Return what a padded frame holds. Raise Http2Error."""
    if not body or body[0] >= len(body):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR)
    return body[1 : len(body) - body[0]]


def number(body: bytes) -> int:
    """Return the number that a frame is. Raise Http2Error."""
    if len(body) != 4:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR)
    return int(NUMBER.unpack(body)[0])
