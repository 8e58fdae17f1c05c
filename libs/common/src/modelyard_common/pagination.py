"""Cursors: an opaque text that says where a page ended. Clients pass it back unchanged."""

from __future__ import annotations

import base64
import binascii
import json

from modelyard_contracts.problem import FieldError

from modelyard_common.errors import Invalid

__all__ = ["MAX_PAGE", "decode_cursor", "encode_cursor"]

MAX_PAGE = 500


def encode_cursor(position: int | str) -> str:
    """Return the cursor of a position. Law: ``decode_cursor(encode_cursor(p)) == p``."""
    return base64.urlsafe_b64encode(json.dumps([position]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | str | None:
    """Return the position that a cursor stands for; None for none. Raise Invalid when it is not one of ours."""
    if cursor is None:
        return None
    try:
        [position] = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError) as exc:
        raise _wrong() from exc
    if not isinstance(position, int | str) or isinstance(position, bool):
        raise _wrong()
    return position


def _wrong() -> Invalid:
    error = FieldError(path="cursor", message="is not a cursor of this list; leave it out to start anew")
    return Invalid("the cursor is not one of ours", errors=(error,))
