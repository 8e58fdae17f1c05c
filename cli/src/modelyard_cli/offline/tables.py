"""Tables on disk, read in pieces of some rows and never as a whole, however large they or their row groups are.

CSV is handed on as text: what a text means is the model's signature to say, so that ``1``, ``1.0`` and an empty field
mean here what they mean to the server, and no type is guessed from the first rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from modelyard_common.errors import Invalid
from pyarrow import ipc

from modelyard_cli.offline.formats import TableFormat

__all__ = ["Table", "open_table", "rechunked"]

_READ_BYTES = 1024**2
"""Read ahead of one column of a Parquet file: a row group may be as large as the file."""
_CSV_BLOCK_BYTES = 4 * 1024**2
"""Read of a CSV file at a time; no row may be longer."""
_ARROW_STREAM = "application/vnd.apache.arrow.stream"


class Table(Protocol):
    """A table on disk."""

    @property
    def names(self) -> Sequence[str]:
        """Its columns."""

    def count(self) -> int:
        """Return the number of rows; a format that does not say is read once for it."""

    def batches(self, columns: Sequence[str], first: int, last: int | None) -> Iterator[pa.RecordBatch]:
        """Yield rows first to last, the latter excluded, of these columns, in order."""

    def encode(self, batch: pa.RecordBatch) -> tuple[bytes, str]:
        """Return rows as a body that the server reads, and its media type."""


@contextmanager
def open_table(path: Path, form: TableFormat) -> Iterator[Table]:
    """Open a table. Raise Invalid when it cannot be read, then or later."""
    opened: dict[TableFormat, Callable[[Path], Table]] = {
        TableFormat.parquet: _Parquet,
        TableFormat.arrow: _Arrow,
        TableFormat.csv: _Csv,
    }
    try:
        table = opened[form](path)
        doubled = {name for name in table.names if list(table.names).count(name) > 1}
        if doubled:
            raise Invalid(f"{path} has two columns named {min(doubled)!r}; rename one")
        yield table
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as exc:
        raise Invalid(f"{path} cannot be read as {form}: {exc}") from exc


def rechunked(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of exactly so many, save the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        left = batch
        while count + left.num_rows >= rows:
            yield _joined([*waiting, left.slice(0, rows - count)])
            left = left.slice(rows - count)
            waiting, count = [], 0
        if left.num_rows:
            waiting.append(left)
            count += left.num_rows
    if count:
        yield _joined(waiting)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


class _Binary:
    """What Parquet and Arrow have in common: columns have types, and travel as an Arrow stream."""

    def encode(self, batch: pa.RecordBatch) -> tuple[bytes, str]:
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue().to_pybytes(), _ARROW_STREAM


class _Parquet(_Binary):
    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
        self.names = tuple(self._file.schema_arrow.names)

    def count(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, columns: Sequence[str], first: int, last: int | None) -> Iterator[pa.RecordBatch]:
        last = self.count() if last is None else last
        groups: list[int] = []
        start = skipped = 0
        for group in range(self._file.metadata.num_row_groups):
            end = start + self._file.metadata.row_group(group).num_rows
            if end > first and start < last:
                skipped = first - start if not groups else skipped
                groups.append(group)
            start = end
        if groups:
            found = self._file.iter_batches(1024, row_groups=groups, columns=list(columns), use_threads=False)
            yield from _plain(_cut(found, skipped, last - first), columns)


class _Arrow(_Binary):
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._batches() as (schema, _):
            self.names = tuple(schema.names)

    def count(self) -> int:
        with self._batches() as (_, batches):
            return sum(batch.num_rows for batch in batches)

    def batches(self, columns: Sequence[str], first: int, last: int | None) -> Iterator[pa.RecordBatch]:
        with self._batches() as (_, batches):
            chosen = (batch.select(list(columns)) for batch in batches)
            yield from _plain(_cut(chosen, first, None if last is None else last - first), columns)

    @contextmanager
    def _batches(self) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Give the schema and the batches, whether it is a file or a stream."""
        with pa.OSFile(str(self._path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                reader = ipc.open_file(source)
                yield reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                stream = ipc.open_stream(source)
                yield stream.schema, iter(stream)


class _Csv:
    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open(encoding="utf-8-sig", newline="") as lines:
            self.names = tuple(next(csv.reader(lines), ()))
        if not self.names:
            raise Invalid(f"{path} has no header: the first line names the columns")

    def count(self) -> int:
        return sum(batch.num_rows for batch in self._read(self.names[:1]))

    def batches(self, columns: Sequence[str], first: int, last: int | None) -> Iterator[pa.RecordBatch]:
        yield from _plain(_cut(self._read(columns), first, None if last is None else last - first), columns)

    def encode(self, batch: pa.RecordBatch) -> tuple[bytes, str]:
        sink = io.BytesIO()
        pacsv.write_csv(batch, sink)
        return sink.getvalue(), "text/csv"

    def _read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        texts = dict.fromkeys(self.names, pa.string())
        yield from pacsv.open_csv(
            self._path,
            read_options=pacsv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=texts, include_columns=list(columns), strings_can_be_null=False
            ),
        )


def _cut(batches: Iterator[pa.RecordBatch], skipped: int, most: int | None) -> Iterator[pa.RecordBatch]:
    """Yield what is left of batches without so many rows at first, and at most so many."""
    for batch in batches:
        if skipped >= batch.num_rows:
            skipped -= batch.num_rows
            continue
        left = batch.slice(skipped, most)
        skipped = 0
        if most is not None:
            most -= left.num_rows
        yield left
        if most == 0:
            return


def _plain(batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield batches with their columns in this order, packed and decimal ones as the values that they stand for."""
    for batch in batches:
        arrays = [_plain_array(batch.column(batch.schema.get_field_index(name))) for name in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _plain_array(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return array.cast(kind.value_type)
    return array.cast(pa.float64()) if pa.types.is_decimal(kind) else array
