"""The report's drawings as numbers for SVG: the template only places them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "Bars", "Cell", "Dot", "HeatMap", "Trend", "bars", "heat_map", "trend"]

_HEAT_ROWS = 12
"""Features in the heat map: the most drifted ones; more would be read by nobody."""
_DARKEST = 0.5
"""PSI of a full cell: well beyond the usual thresholds."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle with its tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str
    kind: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Two distributions, side by side a bar."""

    width: int
    height: int
    bars: tuple[Bar, ...]


def bars(distribution: Mapping[str, Any], width: int = 320, height: int = 84) -> Bars:
    """Return the bars of a distribution in the reference and in the window, on one scale."""
    names = distribution["bars"]
    top = max([1e-9, *distribution["reference"], *distribution["window"]])
    slot = width / max(1, len(names))
    found = []
    for place, name in enumerate(names):
        for side, offset in (("reference", 0.08), ("window", 0.5)):
            share = distribution[side][place]
            tall = max(share / top * (height - 4), 1.0 if share else 0.0)
            x, y = round(place * slot + slot * offset, 2), round(height - tall, 2)
            title = f"{name}: {share:.1%} of the {side}"
            found.append(Bar(x, y, round(slot * 0.42, 2), round(tall, 2), title, side))
    return Bars(width, height, tuple(found))


@dataclass(frozen=True, slots=True)
class Dot:
    """One window's value."""

    x: float
    y: float
    title: str
    severity: str


@dataclass(frozen=True, slots=True)
class Trend:
    """A metric over windows: the line, the band of its intervals, a dot a window."""

    metric: str
    width: int
    height: int
    line: str
    band: str
    dots: tuple[Dot, ...]
    low: float
    high: float


def trend(windows: Sequence[Mapping[str, Any]], metric: str, width: int = 960, height: int = 130) -> Trend | None:
    """Return a metric's course, each window by the version that answered most of its rows; gaps are left out."""
    known = []
    for place, window in enumerate(windows):
        mine = [entry for entry in window["performance"] if entry["metric"] == metric]
        if mine:
            known.append((place, window, max(mine, key=lambda entry: entry["rows"])))
    if len(known) < 2:
        return None
    low, high = min(entry["low"] for _, _, entry in known), max(entry["high"] for _, _, entry in known)
    step = width / max(1, len(windows) - 1)

    def at(place: int, value: float) -> tuple[float, float]:
        inside = 8 + place * step * (width - 16) / width
        return round(inside, 1), round(8 + (high - value) / ((high - low) or 1.0) * (height - 16), 1)

    def path(name: str) -> list[str]:
        return ["{},{}".format(*at(place, entry[name])) for place, _, entry in known]

    dots = []
    for place, window, entry in known:
        x, y = at(place, entry["value"])
        title = f"{window['window']}: {entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
        dots.append(Dot(x, y, title, window["severity"]))
    band = " ".join(path("high") + path("low")[::-1])
    return Trend(metric, width, height, " ".join(path("value")), band, tuple(dots), low, high)


@dataclass(frozen=True, slots=True)
class Cell:
    """One feature in one window; opacity from 0 to 1."""

    x: float
    y: float
    width: float
    opacity: float
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """PSI by feature and window."""

    width: int
    height: int
    row_height: int
    names: tuple[str, ...]
    cells: tuple[Cell, ...]


def heat_map(windows: Sequence[Mapping[str, Any]], ranked: Sequence[str], width: int = 760) -> HeatMap | None:
    """Return the course of the most drifted features."""
    names = tuple(name for name in ranked if any(name in window["psi"] for window in windows))[:_HEAT_ROWS]
    if len(windows) < 2 or not names:
        return None
    row, column = 22, width / len(windows)
    cells = []
    for line, name in enumerate(names):
        for place, window in enumerate(windows):
            value = window["psi"].get(name)
            if value is not None:
                opacity = round(min(1.0, max(value, 0.0) / _DARKEST), 2)
                x, wide = round(place * column, 2), round(max(column - 1.5, 1.0), 2)
                cells.append(Cell(x, line * row, wide, opacity, f"{name} in {window['window']}: PSI {value:.3f}"))
    return HeatMap(width, row * len(names), row, names, tuple(cells))
