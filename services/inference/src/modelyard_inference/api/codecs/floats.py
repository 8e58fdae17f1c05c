"""Many floats that came as JSON, read into an array: as objects they would be made, packed and freed one by one.

simdjson takes numbers as RFC 8259 has them, and rounds them as Python does (to the nearest double, ties to even).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from simdjson import Parser
except ImportError:  # there is none for this Python yet; then they are read as objects
    Parser = None  # type: ignore[misc,assignment]

__all__ = ["floats_of"]

_KEPT_BYTES = 256 * 1024
"""A parser keeps as much memory as its longest document took, so a longer one gets a parser of its own."""


class _Local(threading.local):
    """A parser reads one document at a time."""

    def __init__(self) -> None:
        self.parser = Parser() if Parser is not None else None


_LOCAL = _Local()


def floats_of(text: bytes) -> npt.NDArray[np.float64] | None:
    """Return the numbers of a JSON array; None for anything else: another value among them, rows, no array, no JSON."""
    if (parser := _LOCAL.parser) is None or text.find(b"[", 1) >= 0:  # it would lay rows end to end, however long
        return None
    if len(text) > _KEPT_BYTES:
        parser = Parser()
    try:
        array: Any = parser.parse(text)
        return np.frombuffer(array.as_buffer(of_type="d"), np.float64)
    except (ValueError, TypeError, AttributeError, RuntimeError):  # the last for an integer of more than 64 bits
        return None
