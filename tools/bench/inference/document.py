"""Keeps docs/performance.md and the records beside it together: what it says between its marks is made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.inference.record import Record
from bench.inference.report import ablations_markdown, as_markdown

__all__ = ["publish", "renewed"]

_WRITERS = {"inference": as_markdown, "ablations": ablations_markdown}


def publish(record: Record, name: str, docs: Path) -> None:
    """Keep a record beside the document, and renew the document from it."""
    record.write(docs / "performance" / f"{name}.json")
    page = docs / "performance.md"
    page.write_text(renewed(page.read_text(), docs, (name,)))


def renewed(text: str, docs: Path, names: Iterable[str] = tuple(_WRITERS)) -> str:
    """Return the document with what stands between its marks made again from the records."""
    for name in names:
        body = _WRITERS[name](Record.read(docs / "performance" / f"{name}.json"))
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"performance.md has no marks of {name}")
        text = pattern.sub(lambda _, new=f"{begin}\n\n{body}\n{end}": new, text)  # type: ignore[misc]
    return text
