"""Blocks as bytes: MessagePack, since numbers as text would take longer to write than most models take to answer.

What an older version wrote is read as well: there a record was one row, as JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec
from modelyard_common.logs import get_logger

from modelyard_inference.domain.records import Block

__all__ = ["BLOCK_ROWS", "pack", "unpack"]

_log = get_logger(__name__)
BLOCK_ROWS = 250
"""Rows of one block: half of what is sent at a time, so that a batch is never much less than full."""
_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(Block).decode
_WRITE = msgspec.json.Encoder().encode
_JSON = b"{"


def pack(block: Block) -> bytes:
    """Return a block as bytes."""
    try:
        return _PACK(block)
    except OverflowError:  # an integer of more than 64 bits, which the model took as a float
        return _PACK(block._replace(values=[_narrow(value) for value in block.values]))


def unpack(payload: bytes) -> list[bytes]:
    """Return the records of a payload, each as JSON. Law: of what ``pack`` wrote they are the block's records."""
    if payload.startswith(_JSON):
        return [payload]
    try:
        return [_WRITE(record) for record in _UNPACK(payload).records()]
    except (msgspec.MsgspecError, ValueError, IndexError) as exc:
        # Its sum is right, so it was written so: by a version to come. It is given up, and what follows is not.
        _log.error("spool.block_unreadable", kind=type(exc).__name__)
        return []


def _narrow(value: Any) -> Any:
    return float(value) if type(value) is int and not -(2**63) <= value < 2**64 else value
