"""The formats of tables, told by a file's name or by the caller."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

__all__ = ["TableFormat", "format_of"]


class TableFormat(StrEnum):
    """What ``--format`` takes."""

    parquet = "parquet"
    arrow = "arrow"
    csv = "csv"


_BY_SUFFIX = {
    ".parquet": TableFormat.parquet,
    ".pq": TableFormat.parquet,
    ".arrow": TableFormat.arrow,
    ".feather": TableFormat.arrow,
    ".ipc": TableFormat.arrow,
    ".csv": TableFormat.csv,
}


def format_of(path: Path | str) -> TableFormat | None:
    """Return the format that a name stands for, or None."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())
