"""The identity of a dataset version: a digest over all of its rows, whatever file they came in.

The law, ``modelyard.dataset/v1``:

- A table is its columns, in their order, with name and type, and its rows in their order.
- Types: ``number`` (IEEE 754 binary64), ``integer`` (64 bits, signed), ``boolean``, ``category`` (text, UTF-8),
  ``time`` (microseconds since 1970 in UTC, 64 bits). NaN is a missing value.
- A column is hashed by SHA-256 over three streams, each over all rows: *present* (one byte a row, 1 or 0), *values*
  (little-endian, 8 bytes a row, 1 for booleans, for text the length in bytes; 0 where missing) and, for text, *text*
  (the bytes of all values, end to end). The column's digest is the SHA-256 over the three digests.
- The dataset's digest is the SHA-256 over the canonical JSON of the law's name, the number of rows, and name, type
  and digest of each column.

So it depends on neither file format, compression, chunks nor row groups, and changing any value, name, type or order
changes it. Refused: no columns, no rows, names that are empty, used twice, or begin with ``__``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ColumnDigest", "ColumnHash", "Dataset", "DatasetColumn", "Kind", "dataset_digest", "wrong_names"]

LAW = "modelyard.dataset/v1"

Buffer = bytes | memoryview

Kind = Literal["number", "integer", "boolean", "category", "time"]

MAX_COLUMNS = 10_000
"""Wider tables are refused: a mistake of the delimiter or of the orientation is likelier than such a model."""

MAX_CATEGORIES = 100
"""A text column with more distinct values shows none of them: it holds identifiers or prose, not a choice."""


@dataclass(frozen=True, slots=True)
class DatasetColumn:
    """A column of a dataset version, with what was seen in it."""

    name: str
    kind: Kind
    required: bool
    """No value is missing."""
    min: float | None = None
    max: float | None = None
    categories: tuple[str, ...] | None = None
    """The distinct values of a text column, sorted; None beyond ``MAX_CATEGORIES``."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An immutable dataset version."""

    digest: str
    rows: int
    size_bytes: int
    """Of its canonical Parquet file."""
    columns: tuple[DatasetColumn, ...]
    created: datetime
    name: str = ""


@dataclass(frozen=True, slots=True)
class ColumnDigest:
    """A column as it goes into the digest of its table."""

    name: str
    kind: Kind
    digest: str


def _sha256() -> _Hash:
    return hashlib.sha256()


@dataclass(slots=True)
class ColumnHash:
    """The running hash of one column. Law: how rows are cut into ``update`` calls does not matter."""

    name: str
    kind: Kind
    _present: _Hash = field(default_factory=_sha256)
    _values: _Hash = field(default_factory=_sha256)
    _text: _Hash = field(default_factory=_sha256)

    def update(self, present: Buffer, values: Buffer, text: Buffer = b"") -> None:
        """Take in the next rows, as the three streams of the law."""
        self._present.update(present)
        self._values.update(values)
        self._text.update(text)

    def finish(self) -> ColumnDigest:
        """Return the column's digest over all rows so far."""
        parts = (self._present, self._values, self._text)
        total = hashlib.sha256(b"".join(part.digest() for part in parts))
        return ColumnDigest(self.name, self.kind, total.hexdigest())


def dataset_digest(rows: int, columns: Sequence[ColumnDigest]) -> Digest:
    """Return the identity of a table."""
    document = {
        "law": LAW,
        "rows": rows,
        "columns": [{"name": column.name, "type": column.kind, "digest": column.digest} for column in columns],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def wrong_names(names: Sequence[str]) -> tuple[FieldError, ...]:
    """Return what is wrong with the column names of a table; nothing when they can be used."""
    if not names:
        return (FieldError(path="columns", message="the table has no columns"),)
    if len(names) > MAX_COLUMNS:
        return (FieldError(path="columns", message=f"found {len(names)} columns, allowed: {MAX_COLUMNS}"),)
    errors: list[FieldError] = []
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        path = f"columns[{index}]"
        if not name.strip():
            errors.append(FieldError(path=path, message="the name is empty"))
        elif name.startswith("__"):
            message = f"{name!r}: names that begin with __ are reserved (write the file without the data frame's index)"
            errors.append(FieldError(path=path, message=message))
        elif name in first:
            errors.append(FieldError(path=path, message=f"{name!r} is the name of columns[{first[name]}] too"))
        first.setdefault(name, index)
    return tuple(errors)
