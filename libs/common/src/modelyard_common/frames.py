"""Frames: what two processes on one machine say to each other through a pipe or a socket.

A frame is a byte that says what, four bytes of length, little-endian, then that many bytes. Whoever reads states the
most that it takes, before it makes room for anything: a peer that has lost its way, or that somebody forged, costs
the connection and no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

__all__ = ["BadFrame", "packed", "read_frame", "whole_frame"]

_HEAD = struct.Struct("<BI")


class BadFrame(Exception):
    """The frame is longer than what is taken."""


def packed(kind: int, body: bytes) -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, len(body)) + body


def read_frame(read: Callable[[int], bytes], most_bytes: int) -> tuple[int, bytes]:
    """Return what the next frame says, and its body.

    Args:
        read: returns that many bytes, or fewer where they end.

    Raises:
        EOFError: there is no frame, or only a part of one.
        BadFrame: it is longer than most_bytes.
    """
    head = read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    kind, length = _HEAD.unpack(head)
    if length > most_bytes:
        raise BadFrame(f"a frame of {length} bytes, and {most_bytes} are taken")
    body = read(length)
    if len(body) < length:
        raise EOFError
    return kind, body


def whole_frame(received: bytearray, most_bytes: int) -> tuple[int, bytes] | None:
    """Return the one frame that was received, for whoever cannot wait for it: None until it is whole.

    Raises:
        BadFrame: it is longer than most_bytes, or something follows it.
    """
    if len(received) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack_from(received)
    if length > most_bytes:
        raise BadFrame(f"a frame of {length} bytes, and {most_bytes} are taken")
    whole = _HEAD.size + length
    if len(received) < whole:
        return None
    if len(received) > whole:
        raise BadFrame("something follows a frame that was to be the only one")
    return kind, bytes(received[_HEAD.size :])
