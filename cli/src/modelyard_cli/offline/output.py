"""Outputs that are whole or not there: written under a name of their own, and given the final one at the end."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from modelyard_common.errors import Invalid
from pyarrow import ipc

from modelyard_cli.offline.formats import TableFormat

__all__ = ["TableOutput", "made_by", "open_output", "whole_file"]

_ORIGIN = b"modelyard"
_GROUP_ROWS, _GROUP_BYTES = 131_072, 16 * 1024**2
"""A row group is written when it has so many rows or bytes: large enough to read well, small enough to keep."""


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class TableOutput:
    """Writes tables one after the other; the first says what all are like."""

    def __init__(self, sink: BinaryIO, form: TableFormat, origin: Mapping[str, Any]) -> None:
        self._sink = sink
        self._form = form
        self._origin = {_ORIGIN: json.dumps(origin, sort_keys=True).encode()}
        self._writer: _Writer | None = None
        self._schema: pa.Schema | None = None
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Write rows. Raise Invalid when the format cannot hold them."""
        try:
            if self._schema is None:
                self._schema = table.schema.with_metadata(self._origin)
                self._writer = self._begun(self._schema)
            self._waiting.append(table.cast(self._schema))
            self.rows += table.num_rows
            if sum(one.num_rows for one in self._waiting) >= _GROUP_ROWS or self._bytes() >= _GROUP_BYTES:
                self._flush()
        except pa.ArrowException as exc:
            raise Invalid(f"the output cannot be written as {self._form}: {exc}") from exc

    def close(self) -> None:
        """Write what waits, and the end of the format."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _bytes(self) -> int:
        return sum(one.nbytes for one in self._waiting)

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
            self._waiting = []

    def _begun(self, schema: pa.Schema) -> _Writer:
        writer: _Writer
        if self._form is TableFormat.parquet:
            writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        elif self._form is TableFormat.arrow:
            writer = ipc.new_file(self._sink, schema)
        else:
            writer = pacsv.CSVWriter(self._sink, schema)
        return writer


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that has its name only once it is written to the end, and on disk. Raise Invalid if it cannot be."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(path)
    except OSError as exc:
        raise Invalid(f"{path} cannot be written ({exc.strerror or exc})") from exc
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def open_output(
    path: Path, form: TableFormat, origin: Mapping[str, Any], *, noted: bool = False
) -> Iterator[TableOutput]:
    """Open an output for tables; it has its name once this ends without an error.

    Args:
        origin: what it is made from and by; Parquet and Arrow keep it among the schema's metadata.
        noted: where the format cannot keep it, it is written into a file beside the output.
    """
    with whole_file(path) as sink:
        output = TableOutput(sink, form, origin)
        yield output
        output.close()
        if noted and form is TableFormat.csv:
            # In this order no end in between leaves an output beside the note of another.
            path.unlink(missing_ok=True)
            with whole_file(_note_beside(path)) as note:
                note.write(json.dumps(origin, sort_keys=True).encode())


def made_by(path: Path, form: TableFormat) -> dict[str, Any]:
    """Return the origin of an output. Raise Invalid when it does not say."""
    try:
        return dict(json.loads(_told_origin(path, form)))
    except (pa.ArrowException, OSError, KeyError, ValueError) as exc:
        raise Invalid(f"{path} is there already, and is no output of this command; --force replaces it") from exc


def _told_origin(path: Path, form: TableFormat) -> bytes:
    if form is TableFormat.csv:
        return _note_beside(path).read_bytes()
    schema = pq.read_schema(path) if form is TableFormat.parquet else ipc.open_file(pa.OSFile(str(path))).schema
    told: bytes = (schema.metadata or {})[_ORIGIN]
    return told


def _note_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.origin.json")
