"""The Open Inference Protocol V2 over HTTP: JSON, and its binary extension.

Refuses what it would have to guess: datatypes that do not fit their values, misspelt parameters, bytes left over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.api.codecs.bounds import ANY_ROWS, LARGE_BYTES, check_columns, check_json, check_rows
from modelyard_inference.api.codecs.floats import one_tensor_of
from modelyard_inference.api.codecs.raw import pack, unpack_numbers, width_of
from modelyard_inference.api.codecs.tensors import (
    PLAIN_TYPES,
    VALUES,
    Output,
    Tensor,
    Wanted,
    as_said,
    check_plain_type,
    check_values,
    chosen,
    is_usual,
    metadata_datatype,
    outputs_of,
    rows_of,
    short,
    size_of,
)
from modelyard_inference.api.codecs.text import decoded
from modelyard_inference.domain.answers import AnswerTable
from modelyard_inference.domain.requests import Answer, Answered, Matrix, Rows

__all__ = [
    "V2Call",
    "decode",
    "decode_raw",
    "decode_together",
    "encode",
    "encode_together",
    "listed_bytes",
    "parameters_of",
    "wanted_of",
]

_PARAMETERS = frozenset({"event_time", "log", "routing_key", "timeout", "content_type", "binary_data_output"})
"""``content_type`` is how MLServer's clients name the Python type of values; here the signature says that."""
_MOST_OTHERS = 64
"""Parameters that are none of these; each is compared with all of them."""
_PLAIN = {name.replace("_", ""): name for name in _PARAMETERS}
_MEANT = _PLAIN | {"nolog": "log", "requesttimeout": "timeout", "routekey": "routing_key"}
"""What is meant by a name without case and separators: ours, and what others call the same."""
_LONG = [plain for plain in _PLAIN if len(plain) >= 6]
"""Those of ours in which a slip can be told from another word: too many are like ``log``."""
_ALIKE = 0.82
"""Of difflib: ``timout``, ``timeout_ms`` and ``routing`` are like one of ours, ``event_type`` and ``outputs`` not."""

_NONE: Mapping[str, Any] = MappingProxyType({})
_Float = Literal["FP16", "BF16", "FP32", "FP64"]
_MANY_BYTES = 2048
"""From here on it is quicker to read the floats of a matrix into an array."""
_KEPT_BYTES = 2048
"""What is said before binary tensors is remembered, unless it is longer."""


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Wanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Envelope(msgspec.Struct, kw_only=True):
    """What a request says besides its tensors."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


class _Request(_Envelope, kw_only=True):
    inputs: list[_Tensor]


class _Numbers(_Tensor):
    """A tensor that was read as floats: their types need no look any more."""

    datatype: _Float
    data: list[float | int | None] | None = None


class _NumbersRequest(_Envelope, kw_only=True):
    inputs: list[_Numbers]


class _AboutFloats(msgspec.Struct):
    """A tensor of floats whose values were read into an array."""

    name: str
    shape: list[int]
    datatype: _Float
    parameters: dict[str, Any] | None = None


class _RawOutput(msgspec.Struct):
    """An output whose values follow as bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any]


class _Response(msgspec.Struct):
    model_name: str
    model_version: str
    id: str
    outputs: Sequence[Output | _RawOutput]


class _Placed(NamedTuple):
    """An input whose values lie behind the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int
    place: slice
    path: str


class _Layout(NamedTuple):
    """What a request says before its tensors, and where they lie behind it.

    Attributes:
        rows: the most that one of them has.
        size: bytes of all of them.
    """

    id: str | None
    parameters: Mapping[str, Any]
    wanted: Sequence[Wanted]
    binary: bool
    tensors: tuple[_Placed, ...]
    rows: int
    size: int


_DECODER = msgspec.json.Decoder(_Request)
_NUMBERS = msgspec.json.Decoder(_NumbersRequest)
_ENCODE = msgspec.json.Encoder(enc_hook=np.ndarray.tolist).encode


class V2Call(msgspec.Struct, frozen=True):
    """A decoded request.

    Attributes:
        wanted: the outputs that are asked for; empty means all.
        binary: outputs that do not say otherwise go out as raw bytes.
    """

    rows: Rows
    id: str | None
    parameters: Mapping[str, Any]
    wanted: Sequence[Wanted] = ()
    binary: bool = False


class Joint(NamedTuple):
    """Several requests that are read as one.

    Attributes:
        rows: of all, end to end.
        counts: how many each has.
        calls: what each asks; its rows may be those of all.
    """

    rows: Rows
    counts: Sequence[int]
    calls: Sequence[V2Call]


def decode(body: bytes, json_length: int | None = None, most_rows: int = ANY_ROWS) -> V2Call:
    """Return what a request asks. Raise Invalid, naming the field and never a value, or TooLarge.

    Args:
        json_length: how much of the body is JSON; the rest are tensors. None: all of it.
    """
    binary: memoryview | None = None
    if json_length is not None:
        if json_length > len(body):
            raise Invalid.at("Inference-Header-Content-Length", f"is {json_length}, and the body has {len(body)} bytes")
        binary = memoryview(body)[json_length:]
        body = body[:json_length]
        if binary and (layout := _layout_of(body)) is not None and layout.size == len(binary):
            if layout.rows > most_rows:
                check_rows(layout.rows, most_rows)
            return _filled(layout, binary)
    if len(body) > LARGE_BYTES:
        check_json(body, most_rows)
    if binary is None and len(body) >= _MANY_BYTES and (call := _one_matrix(body, most_rows)) is not None:
        return call
    request = _request(body)
    if binary or len(body) > LARGE_BYTES:
        check_columns(len(request.inputs), "inputs")
        check_rows(max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=0), most_rows)
    known = type(request) is _NumbersRequest
    parameters, binary_output = parameters_of(request.parameters)
    tensors, place = [], 0
    for position, tensor in enumerate(request.inputs):
        if tensor.data is not None and is_usual(tensor.datatype, tensor.shape, tensor.data, known=known):
            values: list[Any] | npt.NDArray[Any] = tensor.data
            if tensor.parameters:
                values = as_said(tensor.datatype, values, tensor.parameters, f"inputs[{position}]")
            tensors.append(Tensor(tensor.name, tensor.datatype, tensor.shape, values))
            continue
        path = f"inputs[{position}]"
        size = size_of(tensor.datatype, tensor.shape, path)
        if tensor.data is not None:
            laid = _laid_out(tensor.data, tensor.shape, path)
            check_values(tensor.datatype, size, laid, f"{path}.data")
            values = as_said(tensor.datatype, laid, tensor.parameters, path)
            tensors.append(Tensor(tensor.name, tensor.datatype, tensor.shape, values))
            continue
        length = _binary_size(tensor, binary, place, path)
        assert binary is not None  # noqa: S101  # or there would be no length
        values = unpack_numbers(tensor.datatype, size, binary[place : place + length], path)
        place += length
        values = as_said(tensor.datatype, values, tensor.parameters, path)
        tensors.append(Tensor(tensor.name, tensor.datatype, tensor.shape, values))
    if binary is not None and place != len(binary):
        raise Invalid.at("body", f"has {len(binary) - place} bytes after the last tensor")
    return V2Call(rows_of(tensors), request.id, parameters, _wanted(request), binary_output)


def listed_bytes(body: bytes, json_length: int) -> int:
    """Return how many bytes of a request may become Python objects: its JSON, where nothing but matrices of numbers is
    behind it, otherwise all.

    Raises:
        Invalid: the JSON is no request.
    """
    if not 0 < json_length <= LARGE_BYTES:
        return len(body)
    inputs = _request(body[:json_length]).inputs
    return json_length if all(one.data is not None or _is_array(one) for one in inputs) else len(body)


def _is_array(tensor: _Tensor) -> bool:
    """Return whether the bytes of a binary tensor stay as they are: ``rows_of`` makes a list of any other."""
    return len(tensor.shape) == 2 and tensor.shape[1] != 1 and tensor.datatype not in ("BYTES", "BOOL")


def _layout_of(content: bytes) -> _Layout | None:
    """Return what is said before tensors that are all binary; None where one is not, or anything is wrong: that is told
    by whoever reads it together with its tensors. None too where it is not worth keeping: it does not come again."""
    if len(content) > _KEPT_BYTES or b'"id"' in content or b'"routing_key"' in content or b'"event_time"' in content:
        return None
    try:
        return _layout(content)
    except (Invalid, KeyError):
        return None


@lru_cache(maxsize=256)
def _layout(content: bytes) -> _Layout:
    """Return the same, kept, since callers say it before other numbers again and again. What fails is not.

    Raises:
        Invalid, KeyError: there is none.
    """
    request = _request(content)
    parameters, binary_output = parameters_of(request.parameters)
    placed, place = [], 0
    for position, tensor in enumerate(request.inputs):
        path, said = f"inputs[{position}]", tensor.parameters or {}
        size, length = size_of(tensor.datatype, tensor.shape, path), said["binary_data_size"]
        if tensor.data is not None or type(length) is not int or length < 0:
            raise KeyError(path)
        if said.get("content_type") not in PLAIN_TYPES:
            raise KeyError(path)
        there = slice(place, place + length)
        placed.append(_Placed(tensor.name, tensor.datatype, tuple(tensor.shape), size, there, path))
        place += length
    rows = max((one.shape[0] for one in placed), default=0)
    return _Layout(request.id, parameters, _wanted(request), binary_output, tuple(placed), rows, place)


def _filled(layout: _Layout, binary: memoryview) -> V2Call:
    tensors = [
        Tensor(name, datatype, shape, unpack_numbers(datatype, size, binary[place], path))
        for name, datatype, shape, size, place, path in layout.tensors
    ]
    return V2Call(rows_of(tensors), layout.id, layout.parameters, layout.wanted, layout.binary)


def decode_together(bodies: Sequence[memoryview], json_length: int | None = None) -> Joint | None:
    """Return several requests as one; None unless the rows of all are a matrix of numbers of one kind, and no more.

    Raises:
        Invalid: one of them is wrong.
    """
    if json_length is not None:
        return _filled_together(bodies, json_length)
    calls = [decode(bytes(body)) for body in bodies]
    if len(calls) == 1:
        rows = calls[0].rows
        is_matrix = rows.matrix is not None and not rows.named and not calls[0].parameters
        return Joint(rows, [rows.count], calls) if is_matrix else None
    matrices = [call.rows.matrix for call in calls if not call.rows.named and not call.parameters]
    matrix = _laid_together([matrix for matrix in matrices if matrix is not None])
    if matrix is None or len(matrices) < len(calls):
        return None
    counts = [call.rows.count for call in calls]
    return Joint(Rows(sum(counts), {}, (), matrix, calls[0].rows.source), counts, calls)


def _filled_together(bodies: Sequence[memoryview], json_length: int) -> Joint | None:
    """Return the same of bodies that say the same before one binary tensor."""
    head = bytes(bodies[0][:json_length])
    layout = _layout_of(head)
    if layout is None or layout.id is not None or layout.parameters or len(layout.tensors) != 1:
        return None
    name, datatype, (rows, *width), size, _, path = layout.tensors[0]
    length = json_length + layout.size
    if len(width) != 1:
        return None
    for body in bodies:
        if len(body) != length or bytes(body[:json_length]) != head:
            return None
    count = len(bodies)
    binary = b"".join([body[json_length:] for body in bodies])
    values = unpack_numbers(datatype, size * count, binary, path)
    call = V2Call(
        rows_of([Tensor(name, datatype, (rows * count, *width), values)]), None, {}, layout.wanted, layout.binary
    )
    if call.rows.matrix is None:
        return None
    return Joint(call.rows, [rows] * count, [call] * count)


def _laid_together(matrices: Sequence[Matrix]) -> Matrix | None:
    first = matrices[0] if matrices else None
    if first is None or any(one.width != first.width for one in matrices):
        return None
    values = [one.values for one in matrices]
    if isinstance(first.values, list):
        lists = [one for one in values if isinstance(one, list)]
        return Matrix(list(chain.from_iterable(lists)), first.width) if len(lists) == len(values) else None
    arrays = [one for one in values if not isinstance(one, list) and one.dtype == first.values.dtype]
    return Matrix(np.concatenate(arrays), first.width) if len(arrays) == len(values) else None


def decode_raw(body: bytes, signature: Signature, most_rows: int = ANY_ROWS) -> V2Call:
    """Return what a body asks that is nothing but one tensor (``Inference-Header-Content-Length: 0``).

    Raises:
        Invalid: the model has several inputs, or the body holds no whole number of values. TooLarge: too many rows.
    """
    if len(signature.features) != 1:
        raise Invalid.at(
            "Inference-Header-Content-Length", "may be 0 for models of one input only; send JSON before the tensors"
        )
    feature = signature.features[0]
    datatype = metadata_datatype(feature)
    width = width_of(datatype)
    # One text, or as many numbers as there are.
    size = 1 if width is None else len(body) // width
    check_rows(size, most_rows)
    values = unpack_numbers(datatype, size, body, "body")
    return V2Call(rows_of([Tensor(feature.name, datatype, (size,), values)]), None, {}, (), True)


def _one_matrix(body: bytes, most_rows: int) -> V2Call | None:
    """Return a request whose only input is a matrix of floats, none of them missing; None where it is another."""
    found = one_tensor_of(body, most_rows)
    if found is None:
        return None
    try:
        request = msgspec.convert(found.envelope, _Envelope)
        tensor = msgspec.convert(found.tensor, _AboutFloats)
    except msgspec.ValidationError:
        return None
    if tensor.parameters and tensor.parameters.get("content_type") not in PLAIN_TYPES:
        return None
    shape, values = tensor.shape, found.values
    if len(shape) != 2 or shape[1] == 1 or not is_usual(tensor.datatype, shape, values, known=True):
        return None
    parameters, binary_output = parameters_of(request.parameters)
    rows = rows_of([Tensor(tensor.name, tensor.datatype, shape, values)])
    return V2Call(rows, request.id, parameters, _wanted(request), binary_output)


def _request(body: bytes) -> _Request | _NumbersRequest:
    """Return a request, with its values as numbers if that is what all of them are."""
    try:
        return _NUMBERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decoded(_DECODER, body)  # what is wrong is told by the shape that takes more


def encode(answer: Answer, call: V2Call) -> tuple[bytes, int | None]:
    """Return the response, and how much of it is JSON: None where all of it is.

    Raises:
        Invalid: an output is asked for that there is not.
    """
    outputs, binary = _asked_of(answer, call)
    written: Sequence[Output | _RawOutput] = outputs
    tails: list[bytes] = []
    if binary:
        written = [_raw(output, tails) if raw else output for output, raw in zip(outputs, binary, strict=True)]
    response = _Response(answer.model, str(answer.number), call.id or answer.prediction_id, written)
    content = _ENCODE(response)
    return (b"".join((content, *tails)), len(content)) if tails else (content, None)


def _asked_of(answer: Answer, call: V2Call) -> tuple[list[Output], Sequence[bool]]:
    """Return the outputs that are asked for, and whether each goes out as raw bytes; nothing where none does."""
    outputs = outputs_of(answer)
    if call.wanted:
        binary = [call.binary if want.binary is None else want.binary for want in call.wanted]
        return chosen(outputs, call.wanted), binary
    return outputs, [True] * len(outputs) if call.binary else ()


def encode_together(found: Answered, calls: Sequence[V2Call]) -> Iterable[tuple[bytes, int | None]]:
    """Return the responses to requests that ``decode_together`` has read. Raises what ``encode`` does.

    Where they say the same but for what they are called and their values, what is said is written once.
    """
    call, table = calls[0], found.answers
    if len(found) == 1 or calls[-1] is not call or not isinstance(table, AnswerTable) or len(set(table.counts)) > 1:
        return map(encode, found, calls)
    first = next(iter(found))
    outputs, binary = _asked_of(first, call)
    if not binary or not all(binary) or any(output.datatype == "BYTES" for output in outputs):  # texts differ in length
        return map(encode, found, calls)
    return _encoded_together(first, found.ids, table, call, outputs)


def _encoded_together(
    first: Answer, ids: Sequence[str], table: AnswerTable, call: V2Call, outputs: Sequence[Output]
) -> Iterator[tuple[bytes, int | None]]:
    """Yield the same where all of the values follow as numbers, and all have as many rows.

    Args:
        first: the answer to the first of them.
        outputs: as they are asked for.
    """
    content, json_length = encode(first, call)
    before, _, after = content[:json_length].partition(first.prediction_id.encode())
    packed = [pack(output.datatype, VALUES[output.name](table)) for output in outputs]
    tails = [(values, len(values) // len(ids)) for values in packed]
    for place, prediction_id in enumerate(ids):
        values = [values[place * size : (place + 1) * size] for values, size in tails]
        yield b"".join((before, prediction_id.encode(), after, *values)), json_length


def parameters_of(given: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], bool]:
    """Return a request's parameters without those that nobody reads, and whether all outputs go out as raw bytes.

    Triton hands what is custom to the model, and here no model reads any.

    Raises:
        Invalid: one would be missed, or is not of its type.
    """
    if not given:
        return _NONE, False
    if others := given.keys() - _PARAMETERS:
        _check_others(others)
    known = {name: value for name, value in given.items() if name in _PARAMETERS}
    check_plain_type(known.get("content_type"), "parameters")
    binary_output = _truth(known.pop("binary_data_output", False), "parameters.binary_data_output")
    return MappingProxyType(known), binary_output  # as several requests may have it


def _check_others(names: Collection[str]) -> None:
    """Raise Invalid for parameters that would be missed: those of sequences, and those that look misspelt."""
    if len(names) > _MOST_OTHERS:
        raise Invalid.at("parameters", f"has {len(names)} names that are not read here; at most {_MOST_OTHERS} may be")
    for name in sorted(names):
        if name.startswith("sequence_"):
            raise Invalid.at("parameters", f"{short(name)} is not offered: there are no sequences here")
        plain = name[:64].lower().replace("-", "").replace("_", "")
        bare = plain.removeprefix("modelyard")  # the headers begin so
        like = [bare] if bare in _MEANT else get_close_matches(bare, _LONG, 1, _ALIKE)
        if like or plain.startswith("modelyard"):
            there = ", ".join([_MEANT[one] for one in like] or sorted(_PARAMETERS))
            raise Invalid.at("parameters", f"{short(name)} is not known; there is {there}")


def _wanted(request: _Envelope) -> Sequence[Wanted]:
    if not request.outputs:
        return ()
    return [wanted_of(place, output.name, output.parameters) for place, output in enumerate(request.outputs)]


def wanted_of(place: int, name: str, given: Mapping[str, Any] | None) -> Wanted:
    """Return an output that is asked for. Raise Invalid for a parameter of it that is not known or not of its type."""
    if not given:
        return Wanted(name)
    path = f"outputs[{place}].parameters"
    if unknown := given.keys() - {"binary_data", "content_type"}:
        raise Invalid.at(path, f"{short(min(unknown))} is not known; there is binary_data")
    check_plain_type(given.get("content_type"), path)
    raw = given.get("binary_data")
    return Wanted(name, None if raw is None else _truth(raw, f"{path}.binary_data"))


def _truth(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid.at(path, "must be true or false")
    return value


def _laid_out(data: list[Any], shape: Sequence[int], path: str) -> list[Any]:
    """Return values that came as a list or as a list of rows, end to end."""
    if len(shape) == 2 and data and type(data[0]) is list:
        if len(data) != shape[0] or any(type(row) is not list or len(row) != shape[1] for row in data):
            raise Invalid.at(f"{path}.data", "does not have the shape that it names")
        return [value for row in data for value in row]
    return data


def _binary_size(tensor: _Tensor, binary: memoryview | None, place: int, path: str) -> int:
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        raise Invalid.at(f"{path}.data", "is required, or parameters.binary_data_size with the bytes after the JSON")
    if binary is None:
        raise Invalid.at(f"{path}.parameters.binary_data_size", "needs the header Inference-Header-Content-Length")
    if type(size) is not int or not 0 <= size <= len(binary) - place:
        raise Invalid.at(f"{path}.parameters.binary_data_size", "is not a number of bytes that follow the JSON")
    return size


def _raw(output: Output, tails: list[bytes]) -> _RawOutput:
    content = pack(output.datatype, output.values)
    tails.append(content)
    return _RawOutput(output.name, output.datatype, output.shape, {"binary_data_size": len(content)})
