"""What a request of protobuf may become: each of its fields is an object, and takes two bytes where it is empty."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from modelyard_common.errors import TooLarge

from modelyard_inference.api.codecs.bounds import LARGE_BYTES, MOST_COLUMNS
from modelyard_inference.api.grpc.open_inference_pb2 import InferTensorContents, ModelInferRequest

__all__ = ["check_fields", "made_bytes"]

_MOST_FIELDS = 16 * MOST_COLUMNS
"""Of a message and of its tensors: as many as all that may be said of so many inputs."""
_MOST_TEXTS = 1_000_000
"""Beside one a row, of all tensors together; JSON may have as many lists."""
_FEW_FIELDS = 100
"""Are looked at on the event loop: one matrix has a dozen, and each takes a microsecond."""
_INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
_TENSORS = (_INPUTS, ModelInferRequest.OUTPUTS_FIELD_NUMBER)
_RAW = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_DATATYPE = ModelInferRequest.InferInputTensor.DATATYPE_FIELD_NUMBER
_CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
_LISTED = (b"BYTES", b"BOOL")
"""Datatypes whose raw values become objects, whatever the shape."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)
_TEXT_TAG = InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_TEXT_TAGS = (bytes((_TEXT_TAG,)), bytes((_TEXT_TAG | 0x80,)))
"""One of these is before each text: a tag of one byte may be written as several."""
_Field = tuple[int, bool, int, int]
"""Its number, whether it is a tensor's, where its bytes begin and end; of what holds none these are the same."""


def check_fields(content: bytes, most_rows: int) -> None:
    """Raise TooLarge for a request of more fields or texts than any has; each becomes an object, however empty.

    It is for those of which more than ``LARGE_BYTES`` are ``made_bytes``. What is no request is left to whoever parses
    it.
    """
    most_texts = _MOST_TEXTS + most_rows
    may_be_many = sum(map(content.count, _TEXT_TAGS)) > most_texts
    texts = 0
    for place, (number, is_inside, start, end) in enumerate(_fields(content, 0, len(content), _TENSORS)):
        if place == _MOST_FIELDS:
            raise TooLarge(f"the message has more than {_MOST_FIELDS} fields")
        if may_be_many and is_inside and number == _CONTENTS:
            texts += sum(1 for _ in islice(_fields(content, start, end), most_texts + 1 - texts))
            if texts > most_texts:
                raise TooLarge(f"the message has more than {most_texts} values in contents; send fewer rows at once")


def made_bytes(content: bytes) -> int:
    """Return how much of a request becomes Python objects: all but the raw numbers of its only tensor, which become
    one array, or a value a row."""
    if len(content) <= LARGE_BYTES:
        return len(content)
    raw_bytes = inputs = 0
    for place, (number, is_inside, start, end) in enumerate(_fields(content, 0, len(content), _TENSORS)):
        inputs += number == _INPUTS and not is_inside
        is_listed = is_inside and number == _DATATYPE and content[start:end] in _LISTED
        if place == _FEW_FIELDS or inputs > 1 or is_listed:
            return len(content)
        if number == _RAW and not is_inside:
            raw_bytes += end - start
    return len(content) - raw_bytes


def _fields(content: bytes, place: int, end: int, tensors: tuple[int, ...] = ()) -> Iterator[_Field]:
    """Yield the fields of a message and of those in it with the numbers of tensors, until one is none."""
    tensor_end = 0
    try:
        while place < end:
            is_inside = place < tensor_end
            byte = content[place]
            tag, place = (byte, place + 1) if byte < 0x80 else _varint(content, place)  # most are short
            number, kind = tag >> 3, tag & 7
            start = place
            if kind == _VARINT:
                _, place = _varint(content, place)
                start = place
            elif kind == _BYTES:
                byte = content[place]
                size, start = (byte, place + 1) if byte < 0x80 else _varint(content, place)
                place = start + size
            elif kind in (_FIXED64, _FIXED32):
                start = place = place + (8 if kind == _FIXED64 else 4)
            elif kind not in _GROUPS:  # of those what is in them is counted
                return
            yield number, is_inside, start, place
            if kind == _BYTES and number in tensors and not is_inside:
                place, tensor_end = start, place
    except IndexError:
        return


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
