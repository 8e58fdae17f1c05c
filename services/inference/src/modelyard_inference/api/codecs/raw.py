"""Tensors as raw bytes: little-endian, row-major; a text is its length in four bytes, then UTF-8.

The same layout in the binary extension of the REST protocol and in gRPC's raw contents. A NaN is a missing value:
bytes have no null.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid

from modelyard_inference.api.codecs.tensors import INTEGER_BITS
from modelyard_inference.domain.requests import plain

__all__ = ["pack", "unpack", "unpack_numbers", "width_of"]

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_DTYPES: dict[str, str] = (
    _FLOATS
    | {"BOOL": "u1", "BF16": "<u2"}
    | {name: f"<{'u' if name[0] == 'U' else 'i'}{bits // 8}" for name, bits in INTEGER_BITS.items()}
)
_NUMPY = {name: np.dtype(code) for name, code in _DTYPES.items()}
_PACKED = {"BOOL": "?", "INT64": "q", "FP32": "f", "FP64": "d"}
"""Codes of ``struct`` for what outputs are; numpy would look at each value of a list twice."""
_LENGTH = struct.Struct("<I")


def width_of(datatype: str) -> int | None:
    """Return how many bytes one value takes; None for texts, which differ."""
    dtype = _NUMPY.get(datatype)
    return None if dtype is None else dtype.itemsize


def unpack(datatype: str, size: int, content: bytes | memoryview, path: str) -> list[Any]:
    """Return the values of a tensor. Raise Invalid unless there are exactly that many."""
    return plain(unpack_numbers(datatype, size, content, path))


def unpack_numbers(datatype: str, size: int, content: bytes | memoryview, path: str) -> list[Any] | npt.NDArray[Any]:
    """Return the same, numbers as an array in which NaN is a missing value."""
    if datatype == "BYTES":
        return _texts(size, content, path)
    dtype = _NUMPY[datatype]
    if len(content) != size * dtype.itemsize:
        raise Invalid.at(path, f"has {len(content)} bytes; {size} values of {datatype} take {size * dtype.itemsize}")
    numbers = np.frombuffer(content, dtype)
    if datatype == "BOOL":
        if numbers.size and numbers.max() > 1:
            raise Invalid.at(path, "holds bytes that are not BOOL: 0 or 1")
        truths: list[Any] = numbers.astype(bool).tolist()
        return truths
    if datatype == "BF16":  # the upper half of a float of 32 bits
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def pack(datatype: str, values: Sequence[Any] | npt.NDArray[Any]) -> bytes:
    """Return the values of an output as bytes. Law: unpack gives them back, as far as the datatype is exact."""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in values]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    if isinstance(values, np.ndarray):
        return values.astype(_NUMPY[datatype], copy=False).tobytes()
    if (code := _PACKED.get(datatype)) is not None:
        return struct.pack(f"<{len(values)}{code}", *values)
    return np.array(values, dtype=_NUMPY[datatype]).tobytes()


def _texts(size: int, content: bytes | memoryview, path: str) -> list[str]:
    texts: list[str] = []
    view, place = memoryview(content), 0
    while place < len(view):
        if place + 4 > len(view):
            raise Invalid.at(path, "ends within the length of a text")
        (length,) = _LENGTH.unpack_from(view, place)
        place += 4
        if place + length > len(view) or len(texts) == size:
            raise Invalid.at(path, f"is not {size} texts, each with its length before it")
        try:
            texts.append(str(view[place : place + length], "utf-8"))
        except UnicodeDecodeError as exc:
            raise Invalid.at(path, "holds a text that is not UTF-8") from exc
        place += length
    if len(texts) != size:
        raise Invalid.at(path, f"has {len(texts)} texts for a shape of {size}")
    return texts
