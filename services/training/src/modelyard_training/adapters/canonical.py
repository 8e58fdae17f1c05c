"""Uploaded Parquet and CSV to canonical Parquet: one pass that reads, converts, hashes, looks and writes.

Canonical types are those of the law in ``domain.datasets``. Whole numbers become 64-bit integers, all others binary64,
dates and times UTC microseconds (a time without an offset is taken as UTC), text stays text. NaN is a missing value;
so is an empty field of a CSV file. Refused, naming the column: nested and binary types, numbers and times that do
not fit without loss. CSV is parsed in memory, because the type of a column is known after its last row only; Parquet
is read in batches. Errors name columns and row numbers, never values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from modelyard_common.errors import Invalid, Unavailable
from modelyard_contracts.problem import FieldError

from modelyard_training.adapters.columns import ColumnReader, canonical_field
from modelyard_training.domain.datasets import dataset_digest, wrong_names
from modelyard_training.usecases.version_dataset import Canonical, Format

__all__ = ["canonicalise"]

# The size of a row group, in rows: large enough to compress well, small enough to hold in memory.
_GROUP_ROWS = 65_536
_MISSING_WORDS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


@dataclass(frozen=True, slots=True)
class _Source:
    schema: Any
    batches: Iterable[Any]


def canonicalise(source: Path, draft: Path, *, format: Format) -> Canonical:
    """Write the table in ``source`` to ``draft`` in canonical form, and return what it is.

    Raises:
        Invalid: the file cannot be read, has no rows, or has columns that cannot be used.
        Unavailable: the disk is full.
    """
    if source.stat().st_size == 0:
        raise Invalid.at("body", "is empty")
    opened = _open_parquet(source) if format == "parquet" else _open_csv(source)
    if errors := wrong_names(opened.schema.names):
        raise Invalid("the columns cannot be used", errors=errors)
    fields = _fields(opened.schema, format)
    readers = [ColumnReader(field, empty_is_missing=format == "csv") for field in fields]
    rows = 0
    try:
        with pq.ParquetWriter(draft, pa.schema(fields), compression="zstd", version="2.6") as writer:
            for batch in _regroup(opened.batches):
                table = pa.table(
                    [r.take(batch.column(i), rows) for i, r in enumerate(readers)], schema=pa.schema(fields)
                )
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                rows += table.num_rows
    except pa.ArrowException as exc:
        raise Invalid.at("body", f"cannot be decoded as {format} after row {rows}") from exc
    except OSError as exc:
        raise _unreadable(exc, format) from exc
    if rows == 0:
        raise Invalid.at("body", "the table has no rows")
    digest = dataset_digest(rows, [reader.digest() for reader in readers])
    return Canonical(str(digest), rows, draft.stat().st_size, tuple(reader.seen() for reader in readers))


def _open_parquet(source: Path) -> _Source:
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as exc:
        raise Invalid.at("body", "is not a Parquet file that can be read") from exc
    return _Source(file.schema_arrow, file.iter_batches(batch_size=_GROUP_ROWS))


def _open_csv(source: Path) -> _Source:
    wrong: list[tuple[int | None, int, int]] = []

    def remember(row: Any) -> str:
        wrong.append((row.number, row.actual_columns, row.expected_columns))
        return "error"

    try:
        table = pa_csv.read_csv(
            source,
            # One thread, so that a wrong row has a number.
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=remember),
            convert_options=pa_csv.ConvertOptions(null_values=_MISSING_WORDS, strings_can_be_null=False),
        )
    except pa.ArrowException as exc:
        # Arrow's message quotes the row; ours must not.
        if wrong:
            number, actual, expected = wrong[0]
            where = f"row {number}" if number is not None else "a row"
            raise Invalid.at("body", f"{where} has {actual} fields, the header has {expected}") from exc
        raise Invalid.at("body", "is not a CSV file that can be read (UTF-8, comma, a header)") from exc
    return _Source(table.schema, table.to_batches(max_chunksize=_GROUP_ROWS))


def _fields(schema: Any, format: Format) -> list[Any]:
    errors: list[FieldError] = []
    fields = []
    for index, field in enumerate(schema):
        canonical = canonical_field(field)
        if canonical is None:
            message = f"{field.name!r} has the type {field.type}, which no model learns from; leave it out"
            if format == "csv" and pa.types.is_binary(field.type):
                message = f"{field.name!r} is not text in UTF-8"
            errors.append(FieldError(path=f"columns[{index}]", message=message))
        else:
            fields.append(canonical)
    if errors:
        raise Invalid("the columns cannot be used", errors=tuple(errors))
    return fields


def _regroup(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield tables of ``_GROUP_ROWS`` rows, the last one shorter: row groups do not depend on how the file was cut."""
    held: list[Any] = []
    count = 0
    for batch in batches:
        held.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        while count >= _GROUP_ROWS:
            whole = pa.concat_tables(held)
            yield whole.slice(0, _GROUP_ROWS)
            held = [whole.slice(_GROUP_ROWS)]
            count -= _GROUP_ROWS
    if count:
        yield pa.concat_tables(held)


def _unreadable(exc: OSError, format: Format) -> Invalid | Unavailable:
    # Arrow raises OSError for broken files too; only the operating system's own have a number.
    if exc.errno is not None:
        return Unavailable(f"the dataset could not be written: {exc.strerror}")
    return Invalid.at("body", f"cannot be decoded as {format}")
