"""Turns what pydantic found wrong with a document into sentences for people: where, what was found, what is allowed.

Nothing here knows the manifest; it is told the shape and the fields that are refused by name.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from modelyard_contracts.problem import FieldError

__all__ = ["field_errors", "path_text"]

Location = tuple[int | str, ...]

_SHOWN_CHARACTERS = 80
_KEY_OF_DICT = "[key]"
_UNION_MEMBERS = frozenset({"str", "int", "float", "bool"})
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_long": "at most {max_length} character(s)",
    "string_too_short": "at least {min_length} character(s)",
    "too_long": "at most {max_length} members",
    "string_type": "text",
    "tuple_type": "a list",
}
"""What is allowed, by the kind of error, as words with pydantic's context filled in."""


def field_errors(
    errors: Sequence[ErrorDetails], *, shape: type[BaseModel], refused: Mapping[str, str]
) -> tuple[FieldError, ...]:
    """Return one error a wrong field, in the order found.

    Args:
        errors: of one ValidationError.
        shape: what the document should have been.
        refused: path to sentence, for fields that are known by name and not taken.
    """
    grouped: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        grouped.setdefault(path_text(_place(error)), []).append(error)
    return tuple(FieldError(path=path, message=_message(found, shape, refused)) for path, found in grouped.items())


def path_text(location: Location) -> str:
    """Return a location as a person writes it: ``spec.gate[0].metric``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text or "(document)"


def _place(error: ErrorDetails) -> Location:
    """Return where the field is; pydantic appends to it which member of a union it tried, or that a key is wrong."""
    location = error["loc"]
    if _is_of_key(error):
        return location[:-2] if location[-1] == _KEY_OF_DICT else location[:-1]
    if location and location[-1] in _UNION_MEMBERS and error["type"] not in {"missing", "extra_forbidden"}:
        return location[:-1]
    return location


def _is_of_key(error: ErrorDetails) -> bool:
    return error["type"] == "invalid_key" or error["loc"][-1:] == (_KEY_OF_DICT,)


def _message(errors: list[ErrorDetails], shape: type[BaseModel], refused: Mapping[str, str]) -> str:
    first = errors[0]
    kind, found = first["type"], _shown(first.get("input"))
    if kind == "extra_forbidden":
        path = path_text(first["loc"])
        return refused.get(path) or f"is not a field of this object{_hint(first['loc'], shape)}"
    if kind == "missing":
        return "is required"
    if _is_of_key(first):
        return f"found the key {found}: write it in quotes, since YAML does not read it as text"
    if kind == "value_error":
        return first["msg"].removeprefix("Value error, ")
    allowed = [_allowed(error) for error in errors]
    if all(allowed):
        return f"found {found}, allowed: {' or '.join(dict.fromkeys(word for word in allowed if word))}"
    return f"found {found}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _allowed(error: ErrorDetails) -> str | None:
    words = _ALLOWED.get(error["type"])
    return words.format_map(error.get("ctx", {})) if words is not None else None


def _shown(found: Any) -> str:
    return re.sub(r"\s+", " ", repr(found))[:_SHOWN_CHARACTERS]


def _hint(location: Location, shape: type[BaseModel]) -> str:
    """Return which field may have been meant, or which there are."""
    owner = _shape_at(location[:-1], shape)
    if owner is None:
        return ""
    names = [field.alias or name for name, field in owner.model_fields.items()]
    written = str(location[-1])
    close = difflib.get_close_matches(_plain(written), [_plain(name) for name in names], n=1, cutoff=0.7)
    if close:
        meant = next(name for name in names if _plain(name) == close[0])
        return f"; did you mean {meant}?"
    return f"; it has {', '.join(names)}"


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _shape_at(location: Location, shape: Any) -> type[BaseModel] | None:
    """Return the shape that a location leads to, or None where the way is lost."""
    here = _unwrapped(shape)
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {field.alias or name: field for name, field in here.model_fields.items()}
            if part not in fields:
                return None
            here = _unwrapped(fields[str(part)].annotation)
        elif get_origin(here) in {tuple, list, dict}:
            members = get_args(here)
            here = _unwrapped(members[1] if get_origin(here) is dict else members[0])
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _unwrapped(annotation: Any) -> Any:
    """Return an annotation without ``| None`` and without Annotated."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _unwrapped(members[0]) if len(members) == 1 else annotation
    return annotation
