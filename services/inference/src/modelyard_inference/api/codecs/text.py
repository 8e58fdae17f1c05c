"""JSON bodies: decoded into a shape, or refused with the field that does not fit and never its value.

``NaN`` is no JSON, but it is what Python writes for a missing number, and MLflow's server has always read it. So a body
that is none for that reason alone is read once more by Python's own parser, with NaN as null.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec
from modelyard_common.errors import Invalid

__all__ = ["decoded"]

T = TypeVar("T")
_LONG_NAME = re.compile(r"(unknown field `.{64}).+(`(?: - at `[^`]*`)?)\Z", re.DOTALL)


def decoded(decoder: msgspec.json.Decoder[T], body: bytes, hint: str = "") -> T:
    """Return what a body holds. Raise Invalid, naming the field and never a value.

    Args:
        hint: what to send instead, for the message about a field.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise Invalid.at("body", f"{_short(exc)}{hint}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if b"NaN" not in body:
            raise Invalid.at("body", "is not JSON") from exc
    try:
        text = body.decode()
        document = json.loads(text, parse_constant=_missing)
        if "\\u" in text:  # Python's parser lets half of a surrogate pair pass, which nobody can write down again
            json.dumps(document, ensure_ascii=False).encode()
        return msgspec.convert(document, decoder.type)
    except msgspec.ValidationError as exc:
        raise Invalid.at("body", f"{_short(exc)}{hint}") from exc
    except (ValueError, RecursionError) as exc:
        raise Invalid.at("body", "is not JSON") from exc


def _short(error: msgspec.ValidationError) -> str:
    """Return what does not fit, without the rest of a long name that somebody sent."""
    return _LONG_NAME.sub(r"\1…\2", str(error))


def _missing(constant: str) -> None:
    if constant != "NaN":
        raise ValueError(constant)
