"""One column on its way into canonical form: converted, hashed over all rows, and looked at.

Refused: values that the canonical type cannot hold without loss (64-bit unsigned numbers, nanoseconds).
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from modelyard_common.errors import Invalid
from modelyard_contracts.problem import FieldError

from modelyard_training.domain.datasets import MAX_CATEGORIES, ColumnDigest, ColumnHash, DatasetColumn, Kind

__all__ = ["ColumnReader", "canonical_field", "kind_of"]

_TYPES: dict[Kind, Any] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.large_string(),
    "time": pa.timestamp("us", tz="UTC"),
}


def kind_of(arrow: Any) -> Kind | None:
    """Return the kind of an Arrow type; None when there is none for it."""
    types = pa.types
    if types.is_dictionary(arrow):
        return kind_of(arrow.value_type)
    if types.is_boolean(arrow):
        return "boolean"
    if types.is_integer(arrow):
        return "integer"
    # A column without a single value could be anything; a number is what nobody has to encode.
    if types.is_floating(arrow) or types.is_decimal(arrow) or types.is_null(arrow):
        return "number"
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "category"
    if types.is_timestamp(arrow) or types.is_date(arrow):
        return "time"
    return None


def canonical_field(field: Any) -> Any | None:
    """Return the field in canonical type, without metadata; None when it has no canonical type."""
    kind = kind_of(field.type)
    return None if kind is None else pa.field(field.name, _TYPES[kind])


class ColumnReader:
    """Takes a column in batch by batch.

    Args:
        field: the canonical field.
        empty_is_missing: an empty text is a missing value, as in CSV, where the two look alike.
    """

    def __init__(self, field: Any, *, empty_is_missing: bool) -> None:
        self._name: str = field.name
        self._type = field.type
        kind = kind_of(field.type)
        if kind is None:
            raise ValueError(f"{field.type} is not canonical")
        self._kind: Kind = kind
        self._empty_is_missing = empty_is_missing
        self._hash = ColumnHash(self._name, kind)
        self._missing = 0
        self._low = math.inf
        self._high = -math.inf
        self._categories: set[str] = set()

    def take(self, column: Any, first_row: int) -> Any:
        """Return the next rows in canonical form; raise Invalid naming the column when they do not fit."""
        values = self._convert(column, first_row)
        self._feed(values)
        self._look(values)
        return values

    def digest(self) -> ColumnDigest:
        """Return the column's digest over all rows so far."""
        return self._hash.finish()

    def seen(self) -> DatasetColumn:
        """Return what was seen in the column."""
        numeric = self._kind in ("number", "integer") and math.isfinite(self._low) and math.isfinite(self._high)
        few = self._kind == "category" and 0 < len(self._categories) <= MAX_CATEGORIES
        return DatasetColumn(
            name=self._name,
            kind=self._kind,
            required=self._missing == 0,
            min=self._low if numeric else None,
            max=self._high if numeric else None,
            categories=tuple(sorted(self._categories)) if few else None,
        )

    def _convert(self, column: Any, first_row: int) -> Any:
        merged = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(merged, pa.ChunkedArray):  # what combine_chunks leaves when there were no chunks
            merged = pa.concat_arrays(merged.chunks) if merged.num_chunks else pa.array([], merged.type)
        try:
            if pa.types.is_dictionary(merged.type):
                merged = merged.dictionary_decode()
            if pa.types.is_timestamp(merged.type) and merged.type.tz is None:
                merged = pc.assume_timezone(merged, "UTC")
            elif pa.types.is_date(merged.type):
                merged = pc.assume_timezone(merged.cast(pa.timestamp("us")), "UTC")
            values = merged.cast(self._type)
        except pa.ArrowException as exc:
            last = first_row + len(merged) - 1
            message = f"{self._name!r} has values in rows {first_row} to {last} that do not fit {self._type}"
            raise Invalid("a column cannot be kept without loss", errors=(_error(self._name, message),)) from exc
        if self._kind == "number":
            return pc.if_else(pc.is_nan(values), pa.scalar(None, self._type), values)
        if self._kind == "category" and self._empty_is_missing:
            return pc.if_else(pc.equal(values, ""), pa.scalar(None, self._type), values)
        return values

    def _feed(self, values: Any) -> None:
        present = _bytes(pc.is_valid(values).cast(pa.uint8()), 1)
        if self._kind == "boolean":
            self._hash.update(present, _bytes(pc.fill_null(values, False).cast(pa.uint8()), 1))
        elif self._kind == "category":
            filled = pc.fill_null(values, "")
            self._hash.update(present, _bytes(pc.binary_length(filled).cast(pa.int64()), 8), _text(filled))
        elif self._kind == "time":
            self._hash.update(present, _bytes(pc.fill_null(values.cast(pa.int64()), 0), 8))
        else:
            self._hash.update(present, _bytes(pc.fill_null(values, 0), 8))

    def _look(self, values: Any) -> None:
        self._missing += values.null_count
        if self._kind in ("number", "integer"):
            bounds = pc.min_max(values).as_py()
            if bounds["min"] is not None:
                self._low = min(self._low, float(bounds["min"]))
                self._high = max(self._high, float(bounds["max"]))
        elif self._kind == "category" and len(self._categories) <= MAX_CATEGORIES:
            distinct = pc.unique(values).drop_null()
            self._categories.update(distinct.slice(0, MAX_CATEGORIES + 1).to_pylist())


def _bytes(array: Any, width: int) -> memoryview:
    """Return the values of an array of fixed width without missing values, as they lie in memory (little-endian)."""
    data = array.buffers()[1]
    if data is None or len(array) == 0:
        return memoryview(b"")
    start = array.offset * width
    return memoryview(data)[start : start + len(array) * width]


def _text(array: Any) -> memoryview:
    """Return the bytes of all values of a large_string array without missing values, end to end."""
    _, offsets, data = array.buffers()
    if data is None or len(array) == 0:
        return memoryview(b"")
    edges = memoryview(offsets).cast("q")
    return memoryview(data)[edges[array.offset] : edges[array.offset + len(array)]]


def _error(name: str, message: str) -> FieldError:
    return FieldError(path=f"columns.{name}", message=message)
