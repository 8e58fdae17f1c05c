"""What differs between two policies, field by field, by the names that the manifest has.

Law: there is a change exactly when the digests of the policies differ. A field that is written out with its default
is therefore none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from pydantic import BaseModel

__all__ = ["Change", "spec_changes"]

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs.

    Attributes:
        path: as in errors: ``spec.gate[0].min``.
        before: None when it was added.
        after: None when it was removed.
    """

    path: str
    op: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


def spec_changes(before: ManagedModelSpec, after: ManagedModelSpec) -> tuple[Change, ...]:
    """Return the fields that differ, in the order in which the manifest has them."""
    return tuple(_walk("spec", before, after))


def _walk(path: str, before: Any, after: Any) -> Iterator[Change]:
    for below, old, new in _parts(before, after):
        yield from _walk(path + below, old, new)
        if not _divides(old, new) and (change := _leaf(path + below, old, new)):
            yield change


def _divides(before: Any, after: Any) -> bool:
    """Return whether two values are compared part by part."""
    if isinstance(before, BaseModel):
        return type(before) is type(after)
    if isinstance(before, Mapping):
        return isinstance(after, Mapping)
    # Lists of plain values (categories, keys) are read as a whole.
    return isinstance(before, tuple) and isinstance(after, tuple) and _holds_parts(before) and _holds_parts(after)


def _holds_parts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, BaseModel) for value in values)


def _parts(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if not _divides(before, after):
        return
    if isinstance(before, BaseModel):
        for name, field in type(before).model_fields.items():
            yield f".{field.alias or name}", getattr(before, name), getattr(after, name)
    elif isinstance(before, Mapping):
        for key in sorted({*before, *after}):
            yield f".{key}", before.get(key, _ABSENT), after.get(key, _ABSENT)
    else:
        for index in range(max(len(before), len(after))):
            old = before[index] if index < len(before) else _ABSENT
            yield f"[{index}]", old, after[index] if index < len(after) else _ABSENT


def _leaf(path: str, before: Any, after: Any) -> Change | None:
    if before is _ABSENT:
        return Change(path, "added", after=_plain(after))
    if after is _ABSENT:
        return Change(path, "removed", before=_plain(before))
    old, new = _plain(before), _plain(after)
    # Compared as JSON: to Python true and 1 are equal.
    return None if canonical_json(old) == canonical_json(new) else Change(path, "changed", old, new)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
