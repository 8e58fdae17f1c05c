"""The report as a page of its own: no script, no font, no image from elsewhere, so that it can be mailed and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["report_page"]

_environment = Environment(
    loader=PackageLoader("modelyard_drift.adapters", "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def report_page(report: Mapping[str, Any]) -> str:
    """Return the HTML page of a report."""
    window = report["window"]
    ranked = sorted(window["features"], key=lambda feature: -feature["psi"])
    if window["prediction"] is not None:
        ranked = [window["prediction"], *ranked]
    return _environment.get_template("report.html.j2").render(
        report=report,
        window=window,
        ranked=ranked,
        bars=_bars,
        trend_line=_line([_first_value(entry) for entry in report["trend"]]),
        scale=max([0.25, *(feature["psi"] for feature in ranked)]),
    )


def _first_value(entry: Mapping[str, Any]) -> float | None:
    values = [row["value"] * row["rows"] for row in entry["performance"][:8]]
    rows = sum(row["rows"] for row in entry["performance"][:8])
    return sum(values) / rows if rows else None


def _bars(distribution: Mapping[str, Any], width: int = 320, height: int = 90) -> dict[str, Any]:
    """Return rectangles (x, y, width, height, title) of both distributions, side by side a bar."""
    count = max(1, len(distribution["bars"]))
    top = max([1e-9, *distribution["reference"], *distribution["window"]])
    slot = width / count
    found: dict[str, Any] = {"width": width, "height": height, "reference": [], "window": []}
    for place, name in enumerate(distribution["bars"]):
        for side, offset in (("reference", 0.08), ("window", 0.5)):
            share = distribution[side][place]
            tall = share / top * (height - 4)
            found[side].append(
                {
                    "x": round(place * slot + slot * offset, 2),
                    "y": round(height - tall, 2),
                    "w": round(slot * 0.42, 2),
                    "h": round(tall, 2),
                    "title": f"{name}: {share:.1%} ({side})",
                }
            )
    return found


def _line(values: Sequence[float | None], width: int = 680, height: int = 90) -> dict[str, Any] | None:
    """Return the polyline of a series, with its range; gaps are left out."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    points = [
        (place / (len(values) - 1) * width, height - 6 - (value - low) / span * (height - 12))
        for place, value in enumerate(values)
        if value is not None
    ]
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        "low": low,
        "high": high,
        "width": width,
        "height": height,
    }
