"""Windows: a model's answered rows, each counted once, on the frozen edges of the champion in force.

State goes in, new state and closed windows come out; nothing here knows a database or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from modelyard_stats.baseline import Baseline
from modelyard_stats.counters import Counters

__all__ = ["Closed", "Closing", "OpenWindow", "Row", "WindowRule", "cut", "feed", "first_window"]

Closing = Literal["rows", "time", "promotion"]


@dataclass(frozen=True, slots=True)
class Row:
    """One answered row of the log, as windows need it."""

    seq: int
    revision: int
    champion: str
    event_time: datetime
    features: dict[str, Any]
    watched: Any
    """The score of the positive class, else the answer."""
    sampled: bool


@dataclass(frozen=True, slots=True)
class WindowRule:
    """When a window is full: after so many rows, or so much event time."""

    rows: int | None
    span: timedelta | None


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """The window that is being filled."""

    index: int
    reference: str
    first_row: int
    counters: Counters
    rows: int = 0
    first_seq: int = 0
    last_seq: int = 0
    time_from: datetime | None = None
    time_until: datetime | None = None
    starts_at: datetime | None = None
    """Event time of the first row that came, from which a window by event time runs: late rows do not move it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A window that is full, or was cut."""

    window: OpenWindow
    by: Closing


def first_window(reference: str, baseline: Baseline) -> OpenWindow:
    """Return the first window of a model."""
    return OpenWindow(0, reference, 0, Counters.empty(baseline))


def feed(
    window: OpenWindow, rows: Sequence[Row], baseline: Baseline, rule: WindowRule
) -> tuple[OpenWindow, list[Closed]]:
    """Add rows of one reference to a window; return the one that is open then, and those that closed.

    Law: feeding rows in any split gives the same windows.
    """
    closed: list[Closed] = []
    left = list(rows)
    while left:
        take, by = _fitting(window, left, rule)
        if take:
            window = _add(window, left[:take], baseline)
            left = left[take:]
        if by is not None:
            closed.append(Closed(window, by))
            window = _next(window, baseline)
    return window, closed


def cut(window: OpenWindow, reference: str, baseline: Baseline) -> tuple[OpenWindow, Closed | None]:
    """Close the window because another champion is in force; return the new one, and the old unless it is empty."""
    closed = Closed(window, "promotion") if window.rows else None
    index = window.index + (1 if closed else 0)
    fresh = OpenWindow(index, reference, window.first_row + window.rows, Counters.empty(baseline))
    return fresh, closed


def _fitting(window: OpenWindow, rows: Sequence[Row], rule: WindowRule) -> tuple[int, Closing | None]:
    """Return how many of the rows belong to the window, and whether it closes then."""
    if rule.rows is not None:
        room = max(0, rule.rows - window.rows)  # the manifest may since have asked for smaller windows
        return (room, "rows") if len(rows) >= room else (len(rows), None)
    assert rule.span is not None  # noqa: S101  # a rule has one of the two
    start = window.starts_at or rows[0].event_time
    for place, row in enumerate(rows):
        if row.event_time >= start + rule.span:
            return place, "time"
    return len(rows), None


def _add(window: OpenWindow, rows: Sequence[Row], baseline: Baseline) -> OpenWindow:
    sampled = [row for row in rows if row.sampled]
    counters = Counters.from_document(window.counters.to_document())
    if sampled:
        names = [feature.name for feature in baseline.features]
        # A row is not counted for a feature that it does not carry: that one is redacted, which is not missing.
        columns = {name: [row.features[name] for row in sampled if name in row.features] for name in names}
        counters.add(baseline, columns, [row.watched for row in sampled])
    times = [row.event_time for row in rows]
    earliest, latest = min(times), max(times)
    return replace(
        window,
        counters=counters,
        rows=window.rows + len(rows),
        first_seq=window.first_seq or rows[0].seq,
        last_seq=rows[-1].seq,
        time_from=earliest if window.time_from is None else min(window.time_from, earliest),
        time_until=latest if window.time_until is None else max(window.time_until, latest),
        starts_at=window.starts_at or rows[0].event_time,
    )


def _next(window: OpenWindow, baseline: Baseline) -> OpenWindow:
    return OpenWindow(window.index + 1, window.reference, window.first_row + window.rows, Counters.empty(baseline))
