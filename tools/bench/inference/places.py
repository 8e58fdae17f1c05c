"""Where a run measures: which models, in which protocols, with how many rows and connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.inference.names import DIALECTS, Dialect
from bench.inference.record import Place

__all__ = ["Extent", "places"]

Extent = Literal["all", "quick", "ablations"]
ELSEWHERE = ((1, 1), (1, 64), (32, 16))
"""Rows and connections that the goals look at: the only ones at which other protocols than V2 in JSON are measured."""


def places(
    models: Sequence[str],
    dialects: Sequence[Dialect],
    rows: Sequence[int],
    connections: Sequence[int],
    extent: Extent,
) -> list[Place]:
    """Return where to measure, what the goals look at first: the time may not be enough for all.

    Nothing is measured at other rows or connections than those asked for.
    """
    sizes = [(count, callers) for count in rows for callers in connections]
    looked_at = [size for size in ELSEWHERE if size in sizes]
    by_dialect: dict[Dialect, list[tuple[int, int]]]
    if extent == "all":
        by_dialect = dict.fromkeys(DIALECTS, looked_at) | {"json": sizes}
    elif extent == "quick":
        by_dialect = {"json": sizes}
    else:  # binary where the log has most to write for a request
        by_dialect = {"json": looked_at, "binary": [size for size in looked_at if size == (32, 16)]}
    every = [
        Place(model=model, dialect=dialect, rows=count, connections=callers)
        for model in models
        for dialect in dialects
        for count, callers in by_dialect.get(dialect, [])
    ]
    return sorted(every, key=lambda place: (place.rows, place.connections) not in ELSEWHERE)
