"""Tensors of the Open Inference Protocol, whichever way they came: checked and turned into rows, answers as tensors.

JSON, the binary extension and gRPC differ in how a tensor's values are written; what they mean is decided here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.open_inference import Datatype, MetadataTensor

from modelyard_inference.domain.answers import Answers, AnswerTable
from modelyard_inference.domain.requests import Answer, Matrix, Rows, plain

__all__ = [
    "DATATYPES",
    "INTEGER_BITS",
    "PLAIN_TYPES",
    "VALUES",
    "Output",
    "Tensor",
    "Wanted",
    "as_said",
    "check_plain_type",
    "check_values",
    "chosen",
    "input_tensors",
    "is_usual",
    "metadata_datatype",
    "output_tensors",
    "outputs_of",
    "rows_of",
    "short",
    "size_of",
]

_INTEGERS: frozenset[type] = frozenset({int, type(None)})
_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})
_TRUTHS: frozenset[type] = frozenset({bool, type(None)})
_TEXTS: frozenset[type] = frozenset({str, type(None)})
INTEGER_BITS = {f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}
_ALLOWED: dict[str, frozenset[type]] = {
    "BOOL": _TRUTHS,
    "BYTES": _TEXTS,
    "FP16": _NUMBERS,
    "FP32": _NUMBERS,
    "FP64": _NUMBERS,
    "BF16": _NUMBERS,
} | dict.fromkeys(INTEGER_BITS, _INTEGERS)
DATATYPES = tuple(_ALLOWED)
_RANGES = {
    name: (0, 2**bits - 1) if name[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, bits in INTEGER_BITS.items()
}
_UNBOUNDED = {name: allowed for name, allowed in _ALLOWED.items() if name not in _RANGES}
PLAIN_TYPES = ("np", "pd", "str", None)
"""Content types that say nothing which the datatype and the signature do not."""
_BEYOND = 2**63
"""No dimension is as large: the protocol's are of 64 bits, and JSON's numbers of any length."""
_DATATYPES: dict[str, Datatype] = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}


class Tensor(NamedTuple):
    """An input whose values fit its datatype and its shape; a missing one is None, in an array NaN."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: list[Any] | npt.NDArray[Any]


class Output(msgspec.Struct):
    """An output, as JSON has it; its values are laid end to end, as an array where the answer has one."""

    name: str
    datatype: Datatype
    shape: list[int]
    values: list[Any] | npt.NDArray[Any] = msgspec.field(name="data")


class Wanted(NamedTuple):
    """An output that is asked for.

    Attributes:
        binary: as raw bytes; None leaves it to the request.
    """

    name: str
    binary: bool | None = None


def is_usual(
    datatype: str, shape: Sequence[int], values: Sequence[Any] | npt.NDArray[Any], *, known: bool = False
) -> bool:
    """Return whether these values need no closer look: most do not, and one look costs little.

    Args:
        known: they are numbers or missing; to look at the type of each costs as much as to read it.
    """
    allowed = _UNBOUNDED.get(datatype)
    if allowed is None:
        return False
    if len(shape) == 1:
        fits = len(values) == shape[0]
    else:
        fits = len(shape) == 2 and shape[0] > 0 and len(values) == shape[0] * shape[1]
    return fits and ((known and allowed is _NUMBERS) or allowed.issuperset(map(type, values)))


def size_of(datatype: str, shape: Sequence[int], path: str) -> int:
    """Return how many values a tensor has. Raise Invalid for a datatype or a shape that is not taken."""
    if datatype not in _ALLOWED:
        raise Invalid.at(f"{path}.datatype", f"must be one of {', '.join(_ALLOWED)}")
    is_one = 1 <= len(shape) <= 2 and min(shape) >= 0 and max(shape) < _BEYOND
    if not is_one or (len(shape) == 2 and shape[1] == 0):
        raise Invalid.at(f"{path}.shape", "must be [rows], [rows, 1] or [rows, features]")
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def check_values(datatype: str, size: int, values: Sequence[Any], path: str) -> None:
    """Raise Invalid unless there are that many values and each is one of the datatype."""
    if len(values) != size:
        raise Invalid.at(path, f"has {len(values)} values for a shape of {size}")
    if not _ALLOWED[datatype].issuperset(map(type, values)):
        raise Invalid.at(path, f"holds values that are not {datatype}")
    limits = _RANGES.get(datatype)
    if limits is not None and size:
        present = [value for value in values if value is not None]
        if present and not (limits[0] <= min(present) and max(present) <= limits[1]):
            raise Invalid.at(path, f"holds values that are not {datatype}")


def as_said(
    datatype: str, values: list[Any] | npt.NDArray[Any], parameters: Mapping[str, Any] | None, path: str
) -> list[Any] | npt.NDArray[Any]:
    """Return the values of a tensor that says how they are written, as MLServer's clients do.

    Raises:
        Invalid: a content type that is not known, or values that are not written so.
    """
    content_type = (parameters or {}).get("content_type")
    if content_type in PLAIN_TYPES:
        return values
    if content_type != "base64":
        check_plain_type(content_type, f"{path}.parameters", "base64, ")
    if datatype != "BYTES":
        raise Invalid.at(f"{path}.parameters.content_type", "may be base64 for BYTES only")
    try:
        return [value if value is None else base64.b64decode(value, validate=True).decode() for value in values]
    except ValueError as exc:
        raise Invalid.at(path, "holds values that are not text in base64") from exc


def check_plain_type(content_type: Any, path: str, others: str = "") -> None:
    """Raise Invalid for a content type that says what nobody here does.

    Args:
        path: of the parameters that it is one of.
        others: what is taken there besides, for the message.
    """
    if content_type not in PLAIN_TYPES:
        named = short(content_type) if isinstance(content_type, str) else "it"
        raise Invalid.at(f"{path}.content_type", f"{named} is not known; there is {others}np, pd, str")


def rows_of(tensors: Sequence[Tensor]) -> Rows:
    """Return a request's inputs as rows. Raise Invalid, naming the input and never a value."""
    if not tensors:
        raise Invalid.at("inputs", "must not be empty")
    named: dict[str, Sequence[Any]] = {}
    narrow: list[str] = []
    matrix: Matrix | None = None
    source, count = "", -1
    for position, (name, datatype, shape, values) in enumerate(tensors):
        rows = shape[0]
        if count not in (-1, rows):
            raise Invalid.at(f"inputs[{position}]", f"has {rows} rows, and the input before it {count}")
        count = rows
        if len(shape) == 2 and shape[1] != 1:
            source = f"inputs[{position}]"
            if matrix is not None or datatype in ("BYTES", "BOOL"):
                raise Invalid.at(source, "only one input may be a matrix, and it holds numbers")
            matrix = Matrix(values, shape[1])
        elif name in named:
            raise Invalid.at(f"inputs[{position}]", "is given twice")
        else:
            named[name] = plain(values)
            if len(shape) == 2 and datatype not in ("BYTES", "BOOL"):
                narrow.append(name)
    if count == 0:
        raise Invalid.at("inputs", "have no rows")
    return Rows(count=count, named=named, matrix=matrix, source=source, narrow=narrow)


VALUES: dict[str, Callable[[Answers | AnswerTable], Any]] = {
    "predict": attrgetter("labels"),
    "predict_proba": attrgetter("probabilities"),
    "score": attrgetter("scores"),
}
"""What ``outputs_of`` has as the values of each output."""


def outputs_of(answer: Answer) -> list[Output]:
    """Return all outputs of an answer."""
    answers = answer.answers
    rows = len(answers.labels)
    outputs = [Output("predict", _label_type(answers.labels), [rows], answers.labels)]
    if answers.probabilities is not None:
        outputs.append(Output("predict_proba", "FP32", [rows, answers.width], answers.probabilities))
    elif answers.scores is not None and answer.signature.task == "anomaly":
        outputs.append(Output("score", "FP32", [rows], answers.scores))
    return outputs


def chosen(outputs: Sequence[Output], wanted: Sequence[Wanted]) -> list[Output]:
    """Return the outputs that are asked for, in that order. Raise Invalid for one that there is not."""
    there = {output.name: output for output in outputs}
    for place, want in enumerate(wanted):
        if want.name not in there:
            raise Invalid.at(
                f"outputs[{place}]", f"{short(want.name)} is no output of this model; there is {', '.join(there)}"
            )
    return [there[want.name] for want in wanted]


def input_tensors(signature: Signature) -> tuple[MetadataTensor, ...]:
    """Return a model's inputs for its metadata."""
    return tuple(
        MetadataTensor(name=column.name, datatype=metadata_datatype(column), shape=(-1,))
        for column in signature.features
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


def metadata_datatype(column: Column) -> Datatype:
    """Return the datatype of a feature."""
    return _DATATYPES.get(column.type, "BYTES")


def short(name: str) -> str:
    """Return a name that somebody sent, for a message."""
    return repr(name[:64])


def _label_type(labels: Sequence[Any]) -> Datatype:
    kind: type = type(labels[0]) if labels else str
    if kind is bool:
        return "BOOL"
    if kind is int:
        return "INT64"
    return "FP64" if kind is float else "BYTES"
