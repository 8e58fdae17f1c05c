"""From what people send to what a model takes: every value is checked against the signature, by name.

A wrong value is reported with its path and what is allowed, never with the value itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.problem import FieldError

__all__ = [
    "LARGEST",
    "Columns",
    "Table",
    "columns_from_rows",
    "columns_from_values",
    "matrix_of",
    "numeric_features",
    "single_rows",
    "text_features",
]

_FINITE = "a finite number of 32 bits"

Columns = Mapping[str, npt.NDArray[Any]]
"""Feature name to values, shape (rows,): float32 for numbers and booleans (NaN is missing), object for categories."""


class Table(Columns):
    """Columns of which the numeric ones are those of one matrix, which a runtime that wants it finds put together.

    Args:
        places: of the numeric features in the matrix, in the signature's order.
        numbers: float32, shape (rows, numeric features).
        texts: the other columns.
    """

    __slots__ = ("_places", "_texts", "numbers")

    def __init__(self, places: Mapping[str, int], numbers: npt.NDArray[np.float32], texts: Columns) -> None:
        self._places = places
        self._texts = texts
        self.numbers = numbers

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column; those of the matrix are views of it."""
        place = self._places.get(name)
        return self._texts[name] if place is None else self.numbers[:, place]

    def __iter__(self) -> Iterator[str]:
        """Return the names, those of numbers first."""
        yield from self._places
        yield from self._texts

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places) + len(self._texts)


_MOST_ERRORS = 20
_MOST_NAME = 64
"""Characters of a name that somebody sent and nobody knows: it goes back in full only as far as it may help."""
LARGEST = float(np.finfo(np.float32).max)
"""Models take numbers in 32 bits; a larger one would become infinite."""


def numeric_features(signature: Signature) -> list[str]:
    """Return the features that a model takes as numbers, in the signature's order."""
    return [column.name for column in signature.features if column.type != "category"]


def text_features(signature: Signature) -> list[str]:
    """Return the features that a model takes as text, in the signature's order."""
    return [column.name for column in signature.features if column.type == "category"]


def matrix_of(columns: Columns, numeric: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the numeric features as one matrix, shape (rows, features); that of a table as it is.

    Args:
        numeric: all of them, in the signature's order; at least one.
    """
    return columns.numbers if isinstance(columns, Table) else np.stack([columns[name] for name in numeric], axis=1)


def single_rows(signature: Signature, columns: Columns) -> Iterator[Table]:
    """Yield each row as the table that a request for it alone brings."""
    numeric, texts = numeric_features(signature), text_features(signature)
    places = {name: place for place, name in enumerate(numeric)}
    rows = len(next(iter(columns.values())))
    numbers = matrix_of(columns, numeric) if numeric else np.empty((rows, 0), dtype=np.float32)
    for row in range(rows):
        one = slice(row, row + 1)
        yield Table(places, numbers[one], {name: columns[name][one] for name in texts})


def columns_from_rows(signature: Signature, rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return rows of feature to value as columns.

    Raises:
        Invalid: no rows, unknown or missing features, wrong types; names each field, at most twenty.
    """
    if not rows:
        raise Invalid("there are no rows", errors=(FieldError(path="rows", message="must not be empty"),))
    names = {column.name for column in signature.features}
    errors: list[FieldError] = []
    for number, row in enumerate(rows):
        for name in row:
            if name not in names:
                errors.append(FieldError(path=f"[{number}].{name[:_MOST_NAME]}", message=_unknown(names)))
        if len(errors) >= _MOST_ERRORS:
            break
    values = {column.name: [row.get(column.name) for row in rows] for column in signature.features}
    return _columns(signature, values, errors)


def columns_from_values(signature: Signature, values: Mapping[str, Sequence[Any]]) -> Columns:
    """Return feature to values (all of one length) as columns. Raise Invalid as ``columns_from_rows`` does."""
    names = {column.name for column in signature.features}
    errors = [FieldError(path=name[:_MOST_NAME], message=_unknown(names)) for name in values if name not in names]
    lengths = {len(column) for name, column in values.items() if name in names}
    if len(lengths) > 1:
        raise Invalid("the inputs have different numbers of rows")
    rows = lengths.pop() if lengths else 0
    if rows == 0 and not errors:
        raise Invalid("there are no rows", errors=(FieldError(path="inputs", message="must not be empty"),))
    whole = {column.name: values.get(column.name, [None] * rows) for column in signature.features}
    return _columns(signature, whole, errors)


def _unknown(names: set[str]) -> str:
    return f"is not a feature of this model; its features are {', '.join(sorted(names))}"


def _columns(signature: Signature, values: Mapping[str, Sequence[Any]], errors: list[FieldError]) -> Columns:
    columns: dict[str, npt.NDArray[Any]] = {}
    for column in signature.features:
        raw = values[column.name]
        columns[column.name] = (
            _texts(column, raw, errors) if column.type == "category" else _numbers(column, raw, errors)
        )
    if errors:
        first = errors[0]
        raise Invalid(f"{first.path}: {first.message}", errors=tuple(errors[:_MOST_ERRORS]))
    return columns


def _numbers(column: Column, raw: Sequence[Any], errors: list[FieldError]) -> npt.NDArray[np.float32]:
    boolean = column.type == "boolean"
    numbers: list[float] = []
    for number, value in enumerate(raw):
        kind = type(value)
        if kind is not float and isinstance(value, np.generic):
            value = value.item()  # noqa: PLW2901  # numpy's numbers are read as Python's
            kind = type(value)
        if kind is float:
            if -LARGEST <= value <= LARGEST and not boolean:
                numbers.append(value)
                continue
            if math.isnan(value) and not column.required:
                numbers.append(math.nan)
                continue
            wanted = "a boolean" if boolean else _FINITE
        elif kind is int or (isinstance(value, int) and not isinstance(value, bool)):
            if value in (0, 1) if boolean else -LARGEST <= value <= LARGEST:
                numbers.append(float(value))
                continue
            wanted = "a boolean" if boolean else _FINITE
        elif value is None:
            if not column.required:
                numbers.append(math.nan)
                continue
            wanted = None
        elif kind is bool:
            if boolean:
                numbers.append(float(value))
                continue
            wanted = "a number"
        else:
            wanted = "a boolean" if boolean else "a number"
        errors.append(_wrong(column, number, wanted))
        numbers.append(math.nan)
    return np.asarray(numbers, dtype=np.float32)


def _texts(column: Column, raw: Sequence[Any], errors: list[FieldError]) -> npt.NDArray[Any]:
    texts: list[str] = []
    for number, value in enumerate(raw):
        if isinstance(value, str):
            texts.append(value)
        elif value is None and not column.required:
            texts.append("")
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            texts.append(str(value))
        else:
            errors.append(_wrong(column, number, None if value is None else "a category (text or an integer)"))
            texts.append("")
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result


def _wrong(column: Column, number: int, wanted: str | None) -> FieldError:
    message = "is required" if wanted is None else f"must be {wanted}"
    return FieldError(path=f"[{number}].{column.name}", message=message)
