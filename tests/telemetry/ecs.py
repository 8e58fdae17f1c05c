"""The Elastic Common Schema, as Elastic's own list of fields has it, and what a log line must be to fit it."""

from __future__ import annotations

import ipaddress
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

FIELDS: dict[str, str] = json.loads(Path(__file__).with_name("ecs_fields.json").read_text())["fields"]
OURS = "modelyard"
_TEXTS = {"keyword", "constant_keyword", "wildcard", "match_only_text", "text"}


def flat(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a document by their dotted names: nested and dotted are the same to Elasticsearch."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def misfits(line: dict[str, Any]) -> list[str]:
    """Return what of a line is not in the schema, or not of its type."""
    wrong = []
    for name, value in flat(line):
        if name.startswith(f"{OURS}."):
            continue
        kind = FIELDS.get(name)
        if kind is None:
            wrong.append(f"{name} is no field")
        elif not _fits(kind, value):
            wrong.append(f"{name} is a {kind}, not {value!r}")
    return wrong


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, list):
        return kind.endswith("[]") and all(_fits(kind.removesuffix("[]"), one) for one in value)
    kind = kind.removesuffix("[]")
    if kind in _TEXTS:
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("long", "integer"):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind in ("float", "double", "scaled_float"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if kind == "date":
            return datetime.fromisoformat(value).tzinfo is not None
        if kind == "ip":
            return bool(ipaddress.ip_address(value))
    except (TypeError, ValueError):
        return False
    return False


def conflicts(lines: Iterable[dict[str, Any]]) -> dict[str, set[str]]:
    """Return our own fields that have more than one type: Elasticsearch would refuse the lines with the later one."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        for name, value in flat({OURS: line.get(OURS, {})}):
            kinds[name] |= _kinds(value)
    return {name: found for name, found in kinds.items() if len(found) > 1}


def _kinds(value: Any) -> set[str]:
    if isinstance(value, list):
        return {kind for one in value for kind in _kinds(one)}
    if value is None:
        return set()
    if isinstance(value, bool):
        return {"boolean"}
    return {"number"} if isinstance(value, int | float) else {type(value).__name__}
