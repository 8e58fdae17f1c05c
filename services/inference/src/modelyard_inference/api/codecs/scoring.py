"""MLflow's scoring protocol (four JSON forms and CSV as rows, predictions as a list) and V1, its kin."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from modelyard_common.errors import Invalid, TooLarge

from modelyard_inference.api.accepting import weights
from modelyard_inference.api.codecs.bounds import ANY_ROWS, check_cells, check_columns, check_json, check_rows
from modelyard_inference.api.codecs.text import decoded
from modelyard_inference.api.errors import UnsupportedMedia
from modelyard_inference.domain.ports import TableFormat
from modelyard_inference.domain.requests import Answer, Rows

__all__ = [
    "ARROW_STREAM",
    "CSV",
    "JSON",
    "TABLES",
    "ScoringCall",
    "columns_of",
    "decode_csv",
    "decode_json",
    "decode_v1",
    "encode",
    "media_type_of",
    "wants_arrow",
]

JSON, CSV = "application/json", "text/csv"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
TABLES: Mapping[str, TableFormat] = {
    "application/vnd.apache.parquet": "parquet",
    ARROW_STREAM: "arrow_stream",
    "application/vnd.apache.arrow.file": "arrow_file",
}
_TYPES = frozenset({JSON, CSV, *TABLES})
_FORMS = "dataframe_split, dataframe_records, instances and inputs"
_PARAMETERS = frozenset({"event_time", "log", "routing_key", "timeout"})
_MOST_PIECES = 1_000_000
"""Lines of CSV beside one a row, empty ones and those in texts; and commas of one, which is split at once."""


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: list[list[Any]]
    columns: list[str] | None = None
    index: list[Any] | None = None


class _Request(msgspec.Struct):  # MLflow's server passes over other keys, such as client_request_id
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | dict[str, Any] | None = None
    inputs: list[Any] | dict[str, Any] | None = None
    params: dict[str, Any] | None = None


class _V1Request(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[Any] | None = None
    inputs: list[Any] | dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    signature_name: str | None = None


_DECODER = msgspec.json.Decoder(_Request)
_DECODER_V1 = msgspec.json.Decoder(_V1Request)
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ScoringCall:
    """A decoded request.

    Attributes:
        answer_name: what the answers are called in the response.
    """

    rows: Rows
    parameters: Mapping[str, Any]
    answer_name: str = "predictions"


def decode_json(body: bytes, most_rows: int = ANY_ROWS) -> ScoringCall:
    """Return what a JSON request asks, passing over keys beside.

    Raise Invalid, naming the field and never a value, or TooLarge.
    """
    check_json(body, most_rows)
    request = decoded(_DECODER, body, f"; send one of {_FORMS}")
    given = [request.dataframe_split, request.dataframe_records, request.instances, request.inputs]
    if sum(form is not None for form in given) != 1:
        raise Invalid.at("body", f"must hold exactly one of {_FORMS}")
    check_rows(max(map(_count, given)), most_rows)
    if request.dataframe_split is not None:
        rows = _split(request.dataframe_split)
    elif request.dataframe_records is not None:
        rows = _records(request.dataframe_records, "dataframe_records")
    elif request.instances is not None:
        rows = _loose(request.instances, "instances")
    else:
        rows = _loose(request.inputs, "inputs")
    return ScoringCall(rows, request.params or {})


def decode_v1(body: bytes, most_rows: int = ANY_ROWS) -> ScoringCall:
    """Return what a V1 request asks: rows as ``instances``, or columns as ``inputs``. Raise Invalid or TooLarge."""
    check_json(body, most_rows)
    request = decoded(_DECODER_V1, body, "; send instances or inputs")
    params = _known(request.parameters)
    if (request.instances is None) == (request.inputs is None):
        raise Invalid.at("body", "must hold exactly one of instances and inputs")
    check_rows(max(_count(request.instances), _count(request.inputs)), most_rows)
    if request.instances is not None:
        return ScoringCall(_loose(request.instances, "instances"), params)
    return ScoringCall(_loose(request.inputs, "inputs"), params, "outputs")


def decode_csv(body: bytes, most_rows: int = ANY_ROWS) -> ScoringCall:
    """Return what a CSV request asks: a header of features, then rows; an empty field is missing."""
    try:
        reader = csv.reader(_lines(body.decode("utf-8-sig"), _MOST_PIECES + most_rows), strict=True)
        lines = list(islice(filter(None, reader), most_rows + 2))
    except UnicodeDecodeError as exc:
        raise Invalid.at("body", "is not UTF-8") from exc
    except csv.Error as exc:
        raise Invalid.at("body", "is not CSV") from exc
    if len(lines) < 2:
        raise Invalid.at("body", "must have a header and at least one row")
    if len(lines) - 1 > most_rows:
        raise TooLarge(f"there are more than {most_rows} rows, which is as many as are taken")
    return ScoringCall(_table(lines[0], lines[1:], "body", untyped=True), {})


def media_type_of(content_type: str) -> str:
    """Return what a body is, as MLflow's server sees it; empty means JSON.

    Raises:
        UnsupportedMedia: it says so in another charset, or with parameters that mean nothing here.
    """
    kind, _, rest = content_type.partition(";")
    for parameter in filter(None, map(str.strip, rest.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip().lower() != "charset":
            raise UnsupportedMedia("Unrecognized content type parameters: only charset is taken")
        if value.strip().strip('"').lower() != "utf-8":
            raise UnsupportedMedia("The scoring server only supports UTF-8")
    kind = kind.strip().lower() or JSON
    if kind not in _TYPES:
        raise UnsupportedMedia(f"This predictor only supports the following content types: Types: {sorted(_TYPES)}.")
    return kind


def wants_arrow(accepted: str) -> bool:
    """Return whether an answer is to be an Arrow stream: ``accept`` names it, and does not prefer JSON."""
    if "arrow" not in accepted.lower():  # most name nothing of the kind
        return False
    taken = weights(accepted)
    of_json = next((taken[name] for name in (JSON, "application/*", "*/*") if name in taken), 0.0)
    return taken.get(ARROW_STREAM, 0.0) > 0 and taken[ARROW_STREAM] >= of_json


def columns_of(answer: Answer) -> dict[str, list[Any]]:
    """Return the response as columns, for a table: the predictions, then the probability of each class or the score."""
    answers = answer.answers
    columns: dict[str, list[Any]] = {"predictions": answers.labels}
    if answers.probabilities is not None:
        for place, label in enumerate(answer.signature.classes):
            named = str(label).lower() if isinstance(label, bool) else str(label)
            columns[f"probability_{named}"] = answers.probabilities[place :: answers.width].tolist()
    elif answers.scores is not None and answer.signature.task == "anomaly":
        columns["score"] = answers.scores
    return columns


def encode(answer: Answer, call: ScoringCall) -> bytes:
    """Return the response."""
    return _ENCODE({call.answer_name: answer.answers.labels})


def _known(parameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if parameters and (unknown := parameters.keys() - _PARAMETERS):
        raise Invalid.at("parameters", f"{min(unknown)[:64]!r} is not known; there is {', '.join(sorted(_PARAMETERS))}")
    return parameters or {}


def _lines(text: str, most: int) -> Iterator[str]:
    """Yield the lines of a text. Raise TooLarge for more lines, or more commas in one, than any table has."""
    for place, line in enumerate(io.StringIO(text, newline="")):
        if place > most:
            raise TooLarge(f"the body has more than {most} lines")
        if line.count(",") > _MOST_PIECES:
            raise TooLarge(f"the body has a line of more than {_MOST_PIECES} commas")
        yield line


def _count(form: _Split | list[Any] | dict[str, Any] | None) -> int:
    """Return how many rows a form has, of columns the most that one of them has."""
    if isinstance(form, dict):
        return max((len(column) for column in form.values() if isinstance(column, list)), default=0)
    rows = form.data if isinstance(form, _Split) else form
    return len(rows or ())


def _split(split: _Split) -> Rows:
    if split.columns is None:
        return _matrix(split.data, "dataframe_split.data")
    return _table(split.columns, split.data, "dataframe_split.data")


def _table(names: Sequence[str], data: Sequence[Sequence[Any]], path: str, *, untyped: bool = False) -> Rows:
    check_columns(len(names), path)
    if len(set(names)) != len(names):
        raise Invalid.at(path, "has two columns of one name")
    if not data:
        raise Invalid.at(path, "has no rows")
    for row, values in enumerate(data):
        if len(values) != len(names):
            raise Invalid.at(f"{path}[{row}]", f"has {len(values)} values for {len(names)} columns")
    named = dict(zip(names, zip(*data, strict=True), strict=True))
    return Rows(count=len(data), named=named, untyped=untyped)


def _records(records: Sequence[Mapping[str, Any]], path: str) -> Rows:
    if not records:
        raise Invalid.at(path, "has no rows")
    names = dict.fromkeys(name for record in records for name in record)
    if not names:
        raise Invalid.at(path, "names no features")
    check_columns(len(names), path)
    check_cells(len(records), len(names), sum(map(len, records)), path)
    return Rows(count=len(records), named={name: [record.get(name) for record in records] for name in names})


def _matrix(data: Sequence[Any], path: str) -> Rows:
    if not data:
        raise Invalid.at(path, "has no rows")
    width = len(data[0]) if isinstance(data[0], list) else 0
    check_columns(width, path)
    for row, values in enumerate(data):
        if not isinstance(values, list) or len(values) != width or not width:
            raise Invalid.at(f"{path}[{row}]", "must be a list as long as the first")
    return Rows(count=len(data), named={}, positional=tuple(zip(*data, strict=True)), source=path)


def _loose(given: list[Any] | dict[str, Any] | None, path: str) -> Rows:
    """Return TensorFlow Serving's forms: rows as dicts or lists, or columns by name."""
    if isinstance(given, dict):
        return _columns(given, path)
    given = given or []
    if given and all(isinstance(item, dict) for item in given):
        return _records(given, path)
    if given and not any(isinstance(item, list | dict) for item in given):
        return Rows(count=len(given), named={}, positional=(given,), source=path)
    return _matrix(given, path)


def _columns(given: Mapping[str, Any], path: str) -> Rows:
    check_columns(len(given), path)
    named = {name: _flat(column) for name, column in given.items()}
    lengths = {len(column) for column in named.values()}
    if not named or 0 in lengths:
        raise Invalid.at(path, "has no rows")
    if len(lengths) > 1:
        raise Invalid.at(path, "has columns of different lengths")
    return Rows(count=lengths.pop(), named=named)


def _flat(column: Any) -> list[Any]:
    """Return a column; numpy writes one of shape [n, 1] as lists of one."""
    if not isinstance(column, list):
        return [column]
    if all(isinstance(item, list) and len(item) == 1 for item in column):
        return [item[0] for item in column]
    return column
