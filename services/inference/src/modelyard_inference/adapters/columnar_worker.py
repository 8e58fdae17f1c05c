"""Reads Parquet and Arrow in a process of its own, and writes Arrow: ``python -m …adapters.columnar_worker``.

The formats are binary, nested and packed, and their library may abort, or unpack a few bytes into gigabytes, when
somebody sends what no library wrote. Here that costs one request: memory is limited, and a process that has died is
replaced. It is a process and not a thread because an abort takes everything down that shares it.
"""

from __future__ import annotations

import io
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import msgspec
from arro3.core import Array, DataType, RecordBatch
from arro3.io import read_ipc, read_ipc_stream, read_parquet, write_ipc_stream
from modelyard_common.frames import packed, read_frame

from modelyard_inference.adapters.columnar_frames import (
    OK,
    READ_PARQUET,
    READ_STREAM,
    REFUSED,
    TOO_LARGE,
    WRITE_STREAM,
)

__all__ = ["main"]

_MEMORY_BYTES = 1024**3
"""Address space: what the process itself takes, and several times the largest body."""
_MOST_BODY_BYTES = _MEMORY_BYTES
"""The server has bounded the body; this one only names what never is one."""
_BATCH_ROWS = 64
"""Rows that are unpacked at a time: a dictionary may make each of them as long as the whole body."""
_PLAIN = frozenset({int, float, str, bool, type(None)})
_OTHER: list[Any] = []
"""Stands for what is no number, text or boolean, such as a point in time: no feature takes it, and an index or another
column that is no feature may hold it."""


class _Refused(Exception):
    """It is read, and is not what can be predicted from."""


class _TooLarge(Exception):
    """There are more rows, or more of them, than a request may have."""


def main(source: BinaryIO, sink: BinaryIO, most_rows: int, most_bytes: int) -> None:
    """Answer frames until there are no more."""
    while True:
        try:
            what, body = read_frame(source.read, _MOST_BODY_BYTES)
        except EOFError:
            return
        try:
            answer = OK, _written(body) if what == WRITE_STREAM else _read(what, body, most_rows, most_bytes)
        except _TooLarge as exc:
            answer = TOO_LARGE, str(exc).encode()
        except _Refused as exc:
            answer = REFUSED, str(exc).encode()
        except Exception:
            answer = REFUSED, b"cannot be read"
        sink.write(packed(*answer))
        sink.flush()


def _read(what: int, body: bytes, most_rows: int, most_bytes: int) -> bytes:
    columns: dict[str, list[Any]] = {}
    rows = size = 0
    for batch in _batches(what, body):
        rows += batch.num_rows
        size += batch.nbytes
        if rows > most_rows:
            raise _TooLarge(f"there are more than {most_rows} rows")
        if size > most_bytes:
            raise _TooLarge(f"the body is larger than {most_bytes} bytes once unpacked")
        names = batch.schema.names
        if len(set(names)) != len(names):
            raise _Refused("has two columns of one name")
        for place, name in enumerate(names):
            columns.setdefault(name, []).extend(_values(cast(Any, batch.column(place)).to_pylist()))
    if not rows or not columns:
        raise _Refused("has no rows")
    return msgspec.msgpack.encode((rows, columns))


def _batches(what: int, body: bytes) -> Iterator[RecordBatch]:
    if what == READ_PARQUET:
        yield from read_parquet(body, batch_size=_BATCH_ROWS)
    else:
        yield from (read_ipc_stream if what == READ_STREAM else read_ipc)(body)


def _values(values: list[Any]) -> list[Any]:
    kinds = set(map(type, values))
    if not kinds <= _PLAIN:
        values = [value if type(value) in _PLAIN else _OTHER for value in values]
    if float in kinds:  # NaN is how pandas writes what is missing
        return [None if value != value else value for value in values]  # noqa: PLR0124
    return values


def _written(body: bytes) -> bytes:
    """Return columns as an Arrow stream; the values of each are of one type."""
    columns: dict[str, list[Any]] = msgspec.msgpack.decode(body)
    types = {bool: DataType.bool(), int: DataType.int64(), float: DataType.float64(), str: DataType.utf8()}
    arrays = [Array(values, types[type(values[0])]) for values in columns.values()]
    sink = io.BytesIO()
    write_ipc_stream(RecordBatch.from_arrays(arrays, names=list(columns)), sink)
    return sink.getvalue()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]), int(sys.argv[2]))
