"""What gRPC writes within HTTP/2: messages behind their length, time left, and text that a header can carry.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
import struct

from modelyard_common.errors import Invalid, ModelyardError, TooLarge

__all__ = ["ENCODINGS", "IDENTITY", "Packed", "framed", "framed_bytes", "header_text", "seconds_of", "whole_messages"]

IDENTITY = b"identity"
ENCODINGS = (IDENTITY, b"deflate", b"gzip")
"""Of messages, as ``grpc-encoding`` names them."""
_HEAD = struct.Struct(">BI")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_TEXT = 1024
"""Bytes of a status message: what callers take in trailers is a few kilobytes, and ids come beside it."""


class Packed(bytes):
    """A message that is compressed, as it came."""

    __slots__ = ()


def whole_messages(partial: bytearray, data: bytes, most_bytes: int, encoding: bytes) -> list[bytes]:
    """Return the messages that are whole with what has come now; keep the rest.

    Args:
        partial: what is left of the data before; it is changed, and never holds more than one message.
        most_bytes: of one message as it travels.
        encoding: that the call names: how those that are ``Packed`` are.

    Raises:
        TooLarge: one says that it is larger than may be; its bytes are not waited for.
        ModelyardError: one is compressed in a call that does not say how.
    """
    if not partial and len(data) >= _HEAD.size and _length(data, most_bytes, encoding) == len(data) - _HEAD.size:
        return [(Packed if data[0] else bytes)(data[_HEAD.size :])]  # most calls are one message in one frame
    partial += data
    found = []
    while len(partial) >= _HEAD.size and (end := _HEAD.size + _length(partial, most_bytes, encoding)) <= len(partial):
        found.append((Packed if partial[0] else bytes)(partial[_HEAD.size : end]))
        del partial[:end]
    return found


def _length(data: bytes | bytearray, most_bytes: int, encoding: bytes) -> int:
    packed, length = _HEAD.unpack_from(data)
    if packed and (packed > 1 or encoding == IDENTITY):
        raise ModelyardError("the flag of a message must be 0, or 1 where grpc-encoding says how it is packed")
    if length > most_bytes:
        raise TooLarge(f"the message has {length} bytes; at most {most_bytes} are taken")
    return int(length)


def framed_bytes(message: bytes) -> int:
    """Return how much a message takes as it travels."""
    return _HEAD.size + len(message)


def framed(message: bytes) -> bytes:
    """Return a message as it travels."""
    return _HEAD.pack(0, len(message)) + message


def seconds_of(timeout: bytes) -> float:
    """Return what ``grpc-timeout`` says. Raise Invalid."""
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise Invalid.at("grpc-timeout", "must be up to eight digits and one of the units H, M, S, m, u, n")
    return int(match[1]) * _UNITS[match[2]]


def header_text(text: str) -> bytes:
    """Return a text as ``grpc-message`` carries it: percent-encoded save for printable ASCII."""
    content = text.encode()[:_MOST_TEXT]
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in content)
