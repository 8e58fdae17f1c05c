"""The report as a page of its own: no script, no font, no image from elsewhere, so that it can be mailed and kept.

Every text in it may come from a stranger's data: the template escapes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from modelyard_drift.adapters.pages.charts import bars, heat_map, trend
from modelyard_drift.adapters.pages.verdict import verdict

__all__ = ["report_page"]

_FIGURES = 12
"""Distributions that are shown at once; the others are a click away."""
_FULL_BAR = 1.0
"""PSI of a full bar: what lies beyond is as broken as can be, and would flatten the others."""

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
    ranked = sorted(window["features"], key=lambda feature: (-feature["psi"], feature["feature"]))
    watched = [window["prediction"]] if window["prediction"] is not None else []
    names = [feature["feature"] for feature in [*watched, *ranked]] or list(report["distributions"])
    figures = [
        (name, bars(report["distributions"][name]), report["distributions"][name])
        for name in names
        if name in report["distributions"]
    ]
    return _environment.get_template("report.html.j2").render(
        report=report,
        window=window,
        verdict=verdict(report),
        rows=[*watched, *ranked],
        drifted={feature["feature"] for feature in [*watched, *ranked] if feature["drifted"]},
        psi={feature["feature"]: feature["psi"] for feature in [*watched, *ranked]},
        share=_share,
        figures=figures[:_FIGURES],
        more_figures=figures[_FIGURES:],
        trends=[found for metric in _metrics(report) if (found := trend(report["trend"], metric)) is not None],
        heat=heat_map(report["trend"], [feature["feature"] for feature in ranked]),
        episodes=_until(report["episodes"], window["index"]),
    )


def _share(psi: float) -> float:
    """Return how much of its bar a PSI fills, in percent."""
    return round(100 * min(1.0, max(psi, 0.0) / _FULL_BAR), 1)


def _metrics(report: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(entry["metric"] for entry in report["window"]["performance"]))


def _until(episodes: Sequence[Mapping[str, Any]], index: int) -> list[Mapping[str, Any]]:
    """Return the episodes that had opened by this window: a report does not know the future."""
    return [episode for episode in episodes if int(episode["opened_window"][1:]) <= index]
