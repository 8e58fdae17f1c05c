"""Cursors: an opaque text that says where a page ended. Clients pass it back unchanged."""

from __future__ import annotations

import base64
import binascii
import json

from modelyard_contracts.problem import FieldError

from modelyard_common.errors import Invalid

__all__ = ["MAX_PAGE", "decode_cursor", "decode_number", "encode_cursor"]

MAX_PAGE = 500


def encode_cursor(position: int | str) -> str:
    """Return the cursor of a position. Law: ``decode_cursor(encode_cursor(p)) == p``."""
    return base64.urlsafe_b64encode(json.dumps([position]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | str | None:
    """Return the position that a cursor stands for; None for none. Raise Invalid when it is not one of ours."""
    if cursor is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError, RecursionError) as exc:
        raise _wrong() from exc
    if not (isinstance(found, list) and len(found) == 1 and _is_position(found[0])):
        raise _wrong()
    position: int | str = found[0]
    return position


def decode_number(cursor: str | None) -> int | None:
    """Return the position of a cursor of a list that is numbered from 0; None for none. Raise Invalid for any other."""
    position = decode_cursor(cursor)
    if isinstance(position, str) or (position is not None and position < 0):
        raise _wrong()
    return position


def _is_position(found: object) -> bool:
    """Return whether a database could be asked for it: a cursor may have been made by anybody."""
    if isinstance(found, str):
        return "\0" not in found and not any("\ud800" <= character <= "\udfff" for character in found)
    return isinstance(found, int) and not isinstance(found, bool) and -(2**63) <= found < 2**63


def _wrong() -> Invalid:
    error = FieldError(path="cursor", message="is not a cursor of this list; leave it out to start anew")
    return Invalid("the cursor is not one of ours", errors=(error,))
