"""What a body may become: a short text can stand for many Python objects, which take longer to make than to refuse.

So rows are counted before tables are made of them, and long JSON is looked at before it is decoded. The other bounds
are far beyond what as many rows as are taken need.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelyard_common.errors import TooLarge

__all__ = [
    "ANY_ROWS",
    "LARGE_BYTES",
    "MOST_COLUMNS",
    "check_cells",
    "check_columns",
    "check_json",
    "check_rows",
]

LARGE_BYTES = 64 * 1024
"""Longer texts are read off the event loop; whatever a shorter one holds is read in a few milliseconds."""
ANY_ROWS = 2**62
"""As many rows as there are."""
MOST_COLUMNS = 16_384
"""Several times as many as a manifest may name features."""
_MOST_LISTS = 1_000_000
"""Beside one a row: columns of shape [rows, 1] are written as a list a value."""
_MOST_OBJECTS = 100_000
"""Beside one a row: inputs and what is said of them."""
_MANY_NAMES = 250_000
"""Of as many, one object takes a fifth of a second to be made; those of many rows take less."""
_MOST_MISSING = 2_500_000
_MISSING_SHARE = 16
_PIECE_BYTES = 1024**2


def check_rows(count: int, most: int) -> None:
    """Raise TooLarge where there are more rows than are taken."""
    if count > most:
        raise TooLarge(f"there are {count} rows; at most {most} are taken")


def check_columns(count: int, path: str) -> None:
    """Raise TooLarge where there are more columns than any model has features."""
    if count > MOST_COLUMNS:
        raise TooLarge(f"{path}: has {count} columns; at most {MOST_COLUMNS} are taken")


def check_cells(rows: int, columns: int, given: int, path: str) -> None:
    """Raise TooLarge for records so different that their table is nearly empty, and far larger than they are.

    Args:
        given: how many values the records have.
    """
    if rows * columns > max(_MOST_MISSING, _MISSING_SHARE * given):
        raise TooLarge(f"{path}: has {columns} columns, of which most rows name few; send fewer rows at once")


def check_json(body: bytes, most_rows: int) -> None:
    """Raise TooLarge for JSON of more lists, objects or names in one object than any request of so many rows has."""
    if len(body) <= LARGE_BYTES:
        return
    lists, objects = _MOST_LISTS + most_rows, _MOST_OBJECTS + most_rows
    if body.count(b"[") <= lists and body.count(b"{") <= objects and body.count(b":") <= _MANY_NAMES:
        return
    bare = b"".join(_outside_texts(body))
    if bare.count(b"[") > lists or bare.count(b"{") > objects:
        raise TooLarge("the body has more lists or objects than are taken; send fewer rows at once")
    if any(part.count(b":") > MOST_COLUMNS for part in bare.split(b"}", objects)):
        raise TooLarge(f"the body has an object of more than {MOST_COLUMNS} names")


def _outside_texts(body: bytes) -> Iterator[bytes]:
    """Yield what of JSON is in no text, in pieces, between which other threads have their turn."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    inside = 0
    for start in range(0, len(unescaped), _PIECE_BYTES):
        parts = unescaped[start : start + _PIECE_BYTES].split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
