"""The Open Inference Protocol V2: a request's tensors as rows, answers as tensors.

Refuses what it would have to guess: datatypes that do not fit their values, unknown parameters, binary tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.open_inference import Datatype, MetadataTensor

from modelyard_inference.domain.requests import Answer, Rows, invalid

__all__ = ["V2Call", "decode", "encode", "input_tensors", "output_tensors"]

_INTEGERS: frozenset[type] = frozenset({int, type(None)})
_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})
_TRUTHS: frozenset[type] = frozenset({bool, type(None)})
_TEXTS: frozenset[type] = frozenset({str, type(None)})
_ALLOWED: dict[str, frozenset[type]] = {
    "BOOL": _TRUTHS,
    "BYTES": _TEXTS,
    "FP16": _NUMBERS,
    "FP32": _NUMBERS,
    "FP64": _NUMBERS,
} | {f"{sign}INT{bits}": _INTEGERS for sign in ("", "U") for bits in (8, 16, 32, 64)}
_PARAMETERS = frozenset({"event_time", "routing_key"})
_DATATYPES: dict[str, Datatype] = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Wanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class _Response(msgspec.Struct):
    model_name: str
    model_version: str
    id: str
    outputs: list[_Output]


_DECODE = msgspec.json.Decoder(_Request).decode
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class V2Call:
    """A decoded request.

    Attributes:
        wanted: names of the outputs that are asked for; None means all.
    """

    rows: Rows
    id: str | None
    parameters: dict[str, Any]
    wanted: frozenset[str] | None


def decode(body: bytes) -> V2Call:
    """Return what a request asks. Raise Invalid, naming the field and never a value."""
    try:
        request = _DECODE(body)
    except msgspec.ValidationError as exc:
        raise invalid("body", str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise invalid("body", "is not JSON") from exc
    parameters = request.parameters or {}
    if unknown := parameters.keys() - _PARAMETERS:
        raise invalid("parameters", f"{_short(min(unknown))} is not known; there is event_time and routing_key")
    wanted = frozenset(output.name for output in request.outputs) if request.outputs else None
    return V2Call(_rows(request.inputs), request.id, parameters, wanted)


def encode(answer: Answer, call: V2Call) -> bytes:
    """Return the response. Raise Invalid when an output is asked for that there is not."""
    outputs = _outputs(answer)
    if call.wanted is not None:
        if missing := call.wanted - {output.name for output in outputs}:
            names = ", ".join(output.name for output in outputs)
            raise invalid("outputs", f"{_short(min(missing))} is no output of this model; there is {names}")
        outputs = [output for output in outputs if output.name in call.wanted]
    return _ENCODE(_Response(answer.model, str(answer.number), call.id or answer.prediction_id, outputs))


def input_tensors(signature: Signature) -> tuple[MetadataTensor, ...]:
    """Return a model's inputs for its metadata."""
    return tuple(
        MetadataTensor(name=column.name, datatype=_datatype(column), shape=(-1,)) for column in signature.features
    )


def output_tensors(signature: Signature) -> tuple[MetadataTensor, ...]:
    """Return a model's outputs for its metadata."""
    if signature.task == "regression":
        return (MetadataTensor(name="predict", datatype="FP64", shape=(-1,)),)
    if signature.task == "anomaly":
        return (
            MetadataTensor(name="predict", datatype="INT64", shape=(-1,)),
            MetadataTensor(name="score", datatype="FP32", shape=(-1,)),
        )
    return (
        MetadataTensor(name="predict", datatype=_label_type(signature.classes), shape=(-1,)),
        MetadataTensor(name="predict_proba", datatype="FP32", shape=(-1, len(signature.classes))),
    )


def _rows(tensors: Sequence[_Tensor]) -> Rows:
    if not tensors:
        raise invalid("inputs", "must not be empty")
    named: dict[str, Sequence[Any]] = {}
    matrix: tuple[Sequence[Any], ...] = ()
    source, count = "", -1
    for position, tensor in enumerate(tensors):
        path = f"inputs[{position}]"
        values = _values(tensor, path)
        rows = tensor.shape[0]
        if count not in (-1, rows):
            raise invalid(path, f"has {rows} rows, and the input before it {count}")
        count = rows
        if len(tensor.shape) == 2 and tensor.shape[1] != 1:
            if matrix or tensor.datatype in ("BYTES", "BOOL"):
                raise invalid(path, "only one input may be a matrix, and it holds numbers")
            width = tensor.shape[1]
            matrix, source = tuple(values[start::width] for start in range(width)), path
        elif tensor.name in named:
            raise invalid(path, "is given twice")
        else:
            named[tensor.name] = values
    if count == 0:
        raise invalid("inputs", "have no rows")
    return Rows(count=count, named=named, positional=matrix, scope="numeric", source=source)


def _values(tensor: _Tensor, path: str) -> list[Any]:
    """Return a tensor's values laid end to end, checked against its datatype and shape."""
    allowed = _ALLOWED.get(tensor.datatype)
    if allowed is None:
        raise invalid(f"{path}.datatype", f"must be one of {', '.join(_ALLOWED)}")
    if tensor.data is None:
        raise invalid(f"{path}.data", "is required; binary tensors are not taken")
    shape = tensor.shape
    if not 1 <= len(shape) <= 2 or min(shape) < 0 or (len(shape) == 2 and shape[1] == 0):
        raise invalid(f"{path}.shape", "must be [rows], [rows, 1] or [rows, features]")
    data = tensor.data
    if len(shape) == 2 and data and type(data[0]) is list:
        if len(data) != shape[0] or any(type(row) is not list or len(row) != shape[1] for row in data):
            raise invalid(f"{path}.data", "does not have the shape that it names")
        data = [value for row in data for value in row]
    size = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    if len(data) != size:
        raise invalid(f"{path}.data", f"has {len(data)} values for a shape of {size}")
    if not allowed.issuperset(map(type, data)):
        raise invalid(f"{path}.data", f"holds values that are not {tensor.datatype}")
    return data


def _outputs(answer: Answer) -> list[_Output]:
    answers = answer.answers
    rows = len(answers.labels)
    outputs = [_Output("predict", _label_type(answers.labels), [rows], answers.labels)]
    if answers.probabilities is not None:
        outputs.append(_Output("predict_proba", "FP32", [rows, answers.width], answers.probabilities))
    elif answers.scores is not None and answer.signature.task == "anomaly":
        outputs.append(_Output("score", "FP32", [rows], answers.scores))
    return outputs


def _label_type(labels: Sequence[Any]) -> Datatype:
    kind: type = type(labels[0]) if labels else str
    if kind is bool:
        return "BOOL"
    if kind is int:
        return "INT64"
    return "FP64" if kind is float else "BYTES"


def _datatype(column: Column) -> Datatype:
    return _DATATYPES.get(column.type, "BYTES")


def _short(name: str) -> str:
    return repr(name[:64])
