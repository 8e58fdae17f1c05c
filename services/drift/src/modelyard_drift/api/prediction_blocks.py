"""Reads a body of blocks: events as their JSON would say them, so that one validation holds for both.

What is wrong is named where it is in the blocks, ``blocks[3].values[17]``, and no value is told. A block is checked to
fit together before its rows are made, and what they would take is bounded: a name is written once for all of them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from modelyard_common.errors import Invalid, TooLarge
from modelyard_contracts.events_v1 import MAX_EVENTS
from modelyard_contracts.frames import payloads_in
from modelyard_contracts.prediction_blocks_v1 import PredictionBlock
from msgspec.structs import astuple

__all__ = ["ReadBlocks", "read_blocks"]

_TYPES = get_type_hints(PredictionBlock)
_Block = msgspec.defstruct(
    "_Block",
    [
        (name, _TYPES[name], PredictionBlock._field_defaults.get(name, msgspec.NODEFAULT))
        for name in PredictionBlock._fields
    ],
    array_like=True,
)
"""The same as msgspec reads it with more fields at its end than are known here."""
_DECODE = msgspec.msgpack.Decoder(_Block).decode
_WRONG = re.compile(r"(Expected .*?)(?: - at `\$(?:\[(\d+)\])?(.*)`)?")
"""What msgspec says of a wrong type, and where; it says more of other things, with the value in it."""
_PLACE = re.compile(r"- at `\$\[(\d{1,4})\][^`]*`$")
"""Where it was, at the end of what msgspec says: before it may be what somebody sent."""
_COLUMNS = {"event_time": "event_times", "prediction": "predictions", "score": "scores"}
"""Fields of an event, and where a block has them of all its rows."""


@dataclass(frozen=True, slots=True)
class ReadBlocks:
    """A body of blocks.

    Attributes:
        document: what JSON of the same events is read as.
        starts: which event is the first of each block.
    """

    document: Mapping[str, Any]
    blocks: Sequence[PredictionBlock]
    starts: Sequence[int]

    def place(self, event: int, field: str, within: Sequence[int | str]) -> tuple[int | str, ...]:
        """Return where the blocks have a field of an event.

        Args:
            within: the feature, where it is ``features``.
        """
        number = bisect_right(self.starts, event) - 1
        block, row = self.blocks[number], event - self.starts[number]
        if field == "features" and within and within[0] in block.names:
            return "blocks", number, "values", row * len(block.names) + block.names.index(str(within[0]))
        if field == "event_time" and len(block.event_times) == 1:
            row = 0
        return ("blocks", number, _COLUMNS[field], row) if field in _COLUMNS else ("blocks", number, field)


def read_blocks(body: bytes, *, max_bytes: int) -> ReadBlocks:
    """Return the events of a body.

    Args:
        max_bytes: what all of them may say together of what a block says once.

    Raises:
        Invalid: it is no frames, their sums or types are wrong, or their fields do not fit together; names the first.
        TooLarge: its events would take more.
    """
    source, blocks = _read(body)
    starts, rows = [], 0
    for number, block in enumerate(blocks):
        if misfit := next(block.misfits(), None):
            raise Invalid.at(f"blocks[{number}].{misfit[0]}", misfit[1])
        starts.append(rows)
        rows += block.rows
    if rows > MAX_EVENTS:
        raise Invalid.at("blocks", f"have {rows} rows; at most {MAX_EVENTS} are taken at once")
    if (size := sum(map(_repeated, blocks))) > max_bytes:
        raise TooLarge(f"what the blocks say once is {size} characters for all of their rows; {max_bytes} are taken")
    events = [event for block in blocks for event in block.events()]
    return ReadBlocks({"source": source, "events": events}, blocks, starts)


def _repeated(block: PredictionBlock) -> int:
    """Return how much the events say together of what a block says once."""
    texts = (block.id, block.model, block.champion, block.version, block.routing_key, block.error or "", *block.names)
    return block.rows * sum(map(len, texts))


def _read(body: bytes) -> tuple[str, list[PredictionBlock]]:
    frames, blocks = payloads_in(body), list[PredictionBlock]()
    try:
        source = next(frames).decode()
    except (StopIteration, ValueError) as exc:
        raise Invalid("the body is no frames, of which the first has the name of who sends") from exc
    try:
        for payload in frames:
            blocks.append(PredictionBlock(*astuple(_DECODE(payload))))
            if len(blocks) > MAX_EVENTS:  # each has a row at least
                raise Invalid.at("blocks", f"are more than {MAX_EVENTS}; at most as many rows are taken at once")
    except msgspec.ValidationError as exc:
        raise _wrong_type(len(blocks), str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid.at(f"blocks[{len(blocks)}]", "is not MessagePack") from exc
    except ValueError as exc:
        raise Invalid.at(f"blocks[{len(blocks)}]", str(exc)) from exc
    return source, blocks


def _wrong_type(number: int, message: str) -> Invalid:
    found = _WRONG.fullmatch(message)
    if found is None:
        place = _PLACE.search(message)
        says, field, rest = "is none of what is allowed", None if place is None else place[1], ""
    else:
        says, field, rest = found.groups()
    path = f"blocks[{number}]"
    return Invalid.at(path if field is None else f"{path}.{PredictionBlock._fields[int(field)]}{rest}", says)
