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

from modelyard_inference.domain.records import Alike, Block

__all__ = ["BLOCK_ROWS", "pack", "pack_alike", "rows_of", "traceparent_of", "unpack"]

_log = get_logger(__name__)
BLOCK_ROWS = 250
"""Rows of one block: far less than what is sent at a time, so that a batch is never much less than full."""
_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(Block).decode
_WRITE = msgspec.json.Encoder().encode
_JSON = b"{"
_BLOCK_HEAD = b"\xdc" + len(Block._fields).to_bytes(2, "big")
_FLOAT_BYTES = 9


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


def pack_alike(blocks: Alike) -> list[bytes] | None:
    """Return what ``pack`` returns of each, with what they share packed once; None where it takes a look at each value.

    An array of MessagePack is its length and then its items, so that what some items have become can stand between
    others; and of items that take as many bytes each, those of one block are cut out of those of all.
    """
    table = blocks.answers
    labels, scores = _items_of(table.labels), b"" if table.scores is None else _items_of(table.scores)
    if labels is None or scores is None or max(table.counts) > BLOCK_ROWS:
        return None
    value_bytes, label_bytes, score_bytes = (len(part) // blocks.rows for part in (blocks.values, labels, scores))
    shared, tail = _few(blocks.stamp.shared), _few(blocks.stamp.rest)
    no_scores = _PACK(None) if table.scores is None else b""
    heads: dict[int, tuple[bytes, bytes, bytes]] = {}
    packed: list[bytes] = []
    start = 0
    for prediction_id, count in zip(blocks.ids, table.counts, strict=True):
        head = heads.get(count)
        if head is None:
            array = _array_head(count)
            head = (_few((count,)) + shared + _bytes_head(count * value_bytes), array, no_scores or array)
            heads[count] = head
        end = start + count
        packed.append(
            b"".join(
                (
                    _BLOCK_HEAD,
                    _PACK(prediction_id),
                    head[0],
                    blocks.values[start * value_bytes : end * value_bytes],
                    head[1],
                    labels[start * label_bytes : end * label_bytes],
                    head[2],
                    scores[start * score_bytes : end * score_bytes],
                    tail,
                )
            )
        )
        start = end
    return packed


def _few(values: Sequence[Any]) -> bytes:
    """Return fewer than sixteen items as they follow the head of their array, which is one byte then."""
    return _PACK(values)[1:]


def _items_of(values: Sequence[Any]) -> bytes | None:
    """Return items as they follow the head of their array, if they are floats, or integers of one byte each."""
    try:
        items = _PACK(values)[len(_array_head(len(values))) :]
    except Exception:  # a runtime may answer anything: each block is told by itself what has no form
        return None
    is_even = len(items) == (_FLOAT_BYTES if type(values[0]) is float else 1) * len(values)
    return items if is_even else None


def _array_head(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 65536 else b"\xdd" + count.to_bytes(4, "big")


def _bytes_head(size: int) -> bytes:
    if size < 256:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size < 65536 else b"\xc6" + size.to_bytes(4, "big")


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
