"""Many floats that came as JSON, read into an array: as objects they would be made, packed and freed one by one.

simdjson takes JSON as RFC 8259 has it, and rounds numbers as Python does (to the nearest double, ties to even).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard_inference.api.codecs.bounds import check_rows

try:
    from simdjson import Array, Object, Parser
except ImportError:  # there is none for this Python yet; then they are read as objects
    Parser = None  # type: ignore[misc,assignment]

__all__ = ["OneTensor", "one_tensor_of"]

_ENVELOPE = frozenset({"id", "parameters", "outputs"})
_TENSOR = frozenset({"name", "shape", "datatype", "parameters"})
_OUTPUT = frozenset({"name", "parameters"})
"""What is looked at; anything else is passed over, as ever."""
_KEPT_BYTES = 256 * 1024
"""A parser keeps as much memory as its longest document took, so a longer one gets a parser of its own."""


class OneTensor(NamedTuple):
    """A request whose only input has nothing but numbers.

    Attributes:
        envelope: what it says besides its input.
        tensor: what its input says besides its values.
    """

    envelope: Mapping[str, Any]
    tensor: Mapping[str, Any]
    values: npt.NDArray[np.float64]


class _Local(threading.local):
    """A parser reads one document at a time."""

    def __init__(self) -> None:
        self.parser = Parser() if Parser is not None else None


_LOCAL = _Local()


def one_tensor_of(body: bytes, most_rows: int) -> OneTensor | None:
    """Return a request of one input with its values as an array.

    None for anything else: another value among them, rows in rows, more inputs, a name that is given twice, no JSON.

    Raises:
        TooLarge: it says that it has more rows, so that nobody need look at its values.
    """
    parser = _LOCAL.parser
    if parser is None or not body.startswith(b"{"):  # it would pass over a byte order mark
        return None
    if len(body) > _KEPT_BYTES:
        parser = Parser()
    try:
        return _read(parser.parse(body), body, most_rows)
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError):
        # The last for an integer of more than 64 bits.
        return None


def _read(document: Any, body: bytes, most_rows: int) -> OneTensor | None:
    envelope = _members(document, _ENVELOPE)
    (only,) = document["inputs"]
    tensor = _members(only, _TENSOR)
    if (shape := tensor["shape"]) and isinstance(shape[0], int):
        check_rows(shape[0], most_rows)
    # Of the inputs, the shape, the data and what is asked for: rows in rows would be laid end to end, however long.
    if not _opens(body, 3 + isinstance(envelope.get("outputs"), list)):
        return None
    return OneTensor(envelope, tensor, np.frombuffer(only["data"].as_buffer(of_type="d"), np.float64))


def _opens(body: bytes, brackets: int) -> bool:
    """Return whether there are so many brackets in a text; to count them takes as long as to parse a third of it."""
    place = -1
    for _ in range(brackets):
        if (place := body.find(b"[", place + 1)) < 0:
            return False
    return body.find(b"[", place + 1) < 0


def _members(document: Any, wanted: frozenset[str]) -> dict[str, Any]:
    """Return those members of an object that are wanted. Raise ValueError for a name that is given twice."""
    names = list(document.keys())
    if len(set(names)) != len(names):
        raise ValueError("a name is given twice")
    # To look one up takes as long as there are names before it, so that it is done for few.
    return {name: _plain(document[name]) for name in wanted.intersection(names)}


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return [_members(item, _OUTPUT) if isinstance(item, Object) else item for item in value]
    return value.as_dict() if isinstance(value, Object) else value
