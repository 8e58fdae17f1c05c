"""What a message of protobuf may become: each of its fields is an object, and takes two bytes where it is empty."""

from __future__ import annotations

from modelyard_common.errors import TooLarge

from modelyard_inference.api.codecs.bounds import LARGE_BYTES, MOST_COLUMNS
from modelyard_inference.api.grpc.open_inference_pb2 import ModelInferRequest

__all__ = ["check_fields"]

_MOST_FIELDS = 16 * MOST_COLUMNS
"""Of a message and of its tensors: as many as all that may be said of so many inputs."""
_TENSORS = (ModelInferRequest.INPUTS_FIELD_NUMBER, ModelInferRequest.OUTPUTS_FIELD_NUMBER)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)


def check_fields(content: bytes) -> None:
    """Raise TooLarge for a message of more fields than any request has; each becomes an object, however empty.

    What is no message is left to whoever parses it.
    """
    if len(content) <= LARGE_BYTES:
        return
    place, tensor_end = 0, 0
    try:
        for _ in range(_MOST_FIELDS):
            if place >= len(content):
                return
            is_inside = place < tensor_end
            tag, place = _varint(content, place)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                _, place = _varint(content, place)
            elif kind == _BYTES:
                size, place = _varint(content, place)
                if number in _TENSORS and not is_inside:
                    tensor_end = place + size
                else:
                    place += size
            elif kind in (_FIXED64, _FIXED32):
                place += 8 if kind == _FIXED64 else 4
            elif kind not in _GROUPS:  # of those what is in them is counted
                return
    except IndexError:
        return
    raise TooLarge(f"the message has more than {_MOST_FIELDS} fields")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return a number and where it ends. Raise IndexError where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise IndexError("it has more than 64 bits")
