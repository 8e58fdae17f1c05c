"""How commands answer: a table for people, JSON for programs. Everything else goes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["ERR", "OUT", "Format", "ago", "print_json", "severity", "short", "show", "show_one"]

_PIPE_WIDTH = 400
"""Where nobody looks, lines need not be broken: `| grep` finds a whole row."""

OUT = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
ERR = Console(stderr=True, highlight=False)

_SEVERITIES = {"critical": "red", "high": "red", "low": "yellow", "none": "green"}


class Format(StrEnum):
    """What ``-o`` takes."""

    table = "table"
    json = "json"


def short(digest: str | None) -> str:
    """Return the first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12] if digest else "-"


def ago(moment: datetime | None) -> str:
    """Return how long ago something was, in one unit."""
    if moment is None:
        return "-"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def severity(value: str) -> Text:
    """Return how bad drift is, in the colour of it."""
    return Text(value, style=_SEVERITIES.get(value, "dim"))


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def show(
    items: Sequence[Any],
    columns: Mapping[str, Any],
    output: Format,
    *,
    prose: Collection[str] = (),
    empty: str = "nothing here yet",
) -> None:
    """Print items as a table, or as JSON.

    Args:
        columns: header to a function that gives an item's cell.
        prose: headers of the columns that may be broken over lines; ids are copied, and never are.
    """
    if output is Format.json:
        print_json(list(items))
        return
    if not items:
        ERR.print(f"[dim]{empty}[/dim]")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for header in columns:
        table.add_column(header.upper(), overflow="fold", no_wrap=header not in prose)
    for item in items:
        table.add_row(*(_cell(cell(item)) for cell in columns.values()))
    OUT.print(table)


def _cell(value: Any) -> Text:
    if value is None or (isinstance(value, str) and not value):
        return Text("-", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    return value if isinstance(value, Text) else Text(str(value))


def show_one(item: Any, lines: Mapping[str, Any], output: Format) -> None:
    """Print one item as aligned lines, or as JSON."""
    if output is Format.json:
        print_json(item)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, _cell(value))
    OUT.print(table)
