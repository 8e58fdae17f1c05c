"""Blocks as bytes: MessagePack, since numbers as text would take longer to write than most models take to answer.

They are written here and sent as they are. Whoever needs their rows has them as JSON: the sink, drift where it takes a
block not as a whole, and the file of what was refused. What an older version wrote is read as well: there a record was
one row, as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from modelyard_common.logs import get_logger

from modelyard_inference.domain.records import Block

__all__ = ["BLOCK_ROWS", "pack", "rows_of", "traceparent_of", "unpack"]

_log = get_logger(__name__)
BLOCK_ROWS = 250
"""Rows of one block: far less than what is sent at a time, so that a batch is never much less than full."""
_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(Block).decode
_WRITE = msgspec.json.Encoder().encode
_JSON = b"{"


class _Head(msgspec.Struct, array_like=True, gc=False):
    """How a block begins; what follows is passed over."""

    id: str
    rows: int


_HEAD = msgspec.msgpack.Decoder(_Head).decode


def pack(block: Block) -> bytes:
    """Return a block as bytes.

    Raises:
        Exception: something in it has no form in bytes.
    """
    try:
        return _PACK(block)
    except OverflowError:  # an integer of more than 64 bits: the model took it as a float, or answered it
        return _PACK(
            block._replace(
                values=block.values if isinstance(block.values, bytes | memoryview) else _narrow(block.values),
                predictions=_narrow(block.predictions),
                scores=None if block.scores is None else _narrow(block.scores),
            )
        )


def rows_of(payload: bytes) -> int:
    """Return how many rows a block has; 0 for what is none."""
    try:
        return max(0, _HEAD(payload).rows)
    except msgspec.MsgspecError:
        return 0


def traceparent_of(payload: bytes) -> str | None:
    """Return the trace that a block belongs to, where one is recorded."""
    try:
        return _UNPACK(payload).traceparent
    except msgspec.MsgspecError:
        return None


def unpack(payload: bytes) -> list[bytes]:
    """Return the rows of a payload, each as JSON. Law: of what ``pack`` wrote they are the block's events.

    With them goes what stays here: the wait, and the trace where one is recorded.
    """
    if payload.startswith(_JSON):
        return [payload]
    try:
        return [_WRITE(row) for row in _rows(_UNPACK(payload))]
    except (msgspec.MsgspecError, ValueError, IndexError) as exc:
        # Its sum is right, so it was written so: by a version to come. It is given up, and what follows is not.
        _log.error("spool.block_unreadable", kind=type(exc).__name__)
        return []


def _rows(block: Block) -> Iterator[dict[str, Any]]:
    stays: dict[str, Any] = {"queue_ms": block.queue_ms}
    if block.traceparent is not None:
        stays["traceparent"] = block.traceparent
    return (event | stays for event in block.events())


def _narrow(values: Sequence[Any]) -> list[Any]:
    return [float(value) if type(value) is int and not -(2**63) <= value < 2**64 else value for value in values]
