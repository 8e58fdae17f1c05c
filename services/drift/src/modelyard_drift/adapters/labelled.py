"""Labelled rows as Parquet: features by name, and beside them who answered what, when, and what was true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from modelyard_contracts.drift_v1 import LABELLED_COLUMNS

from modelyard_drift.usecases.ports import LabelledRow

__all__ = ["write_labelled"]

_CHUNK = 20_000
_TIME = pa.timestamp("us", tz="UTC")


def write_labelled(rows: Iterable[LabelledRow], into: Path) -> int:
    """Write rows to a Parquet file; return how many. Memory is columnar: a row costs its values' bytes."""
    tables = [_table(chunk) for chunk in _chunks(rows)]
    table = pa.concat_tables(_alike(tables), promote_options="permissive") if tables else _table([])
    pq.write_table(table, into, compression="zstd")
    return int(table.num_rows)


def _chunks(rows: Iterable[LabelledRow]) -> Iterator[list[LabelledRow]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _table(rows: Sequence[LabelledRow]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row.features))
    columns = {name: _array([row.features.get(name) for row in rows]) for name in names}
    own: dict[str, pa.Array] = {
        "prediction_id": pa.array([row.prediction_id for row in rows], pa.string()),
        "event_time": pa.array([row.event_time for row in rows], _TIME),
        "label_seq": pa.array([row.label_seq for row in rows], pa.int64()),
        "label": _array([row.label for row in rows]),
        "prediction": _array([row.prediction for row in rows]),
        "version": pa.array([row.version for row in rows], pa.string()),
    }
    for name in LABELLED_COLUMNS:
        columns[f"__{name}"] = own[name]
    return pa.table(columns)


def _array(values: Sequence[Any]) -> pa.Array:
    """Return values of one kind: numbers together, truths together, anything mixed with text as text."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float, bool}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Cast columns to text where some chunk has text: Arrow promotes numbers, but never numbers to text."""
    texts = {field.name for table in tables for field in table.schema if pa.types.is_string(field.type)}
    result = []
    for table in tables:
        for place, field in enumerate(table.schema):
            if field.name in texts and not pa.types.is_string(field.type):
                column = table.column(place).cast(pa.string())
                table = table.set_column(place, field.name, column)  # noqa: PLW2901
        result.append(table)
    return result
