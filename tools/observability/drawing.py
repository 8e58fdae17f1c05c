"""One function a kind of panel: what Grafana would draw of it, with Matplotlib."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from tools.observability.stage import BAR_S, Prometheus
from tools.observability.units import size_of, written

__all__ = ["draw", "note_annotations"]

_COLOURS = {
    "green": "#56a64b",
    "orange": "#ff9830",
    "red": "#e02f44",
    "yellow": "#f2cc0c",
    "blue": "#3274d9",
    "text": "#8e8e8e",
    "transparent": "none",
}
_LINES = ("#3274d9", "#ff9830", "#56a64b", "#e02f44", "#8f3bb8", "#0aa5a5", "#b8860b", "#6d7a8c", "#d15b8f", "#37474f")
_GREY = "#8e8e8e"
_TITLE_IN = 0.24
_CHARACTER_IN = 0.09
_SHORT = 9
"""Characters of a big number; more are written smaller, as Grafana does."""
_LEGEND_ENTRIES = 6
"""More would leave the panel; Grafana lets them be scrolled."""
Box = tuple[float, float, float, float]
Series = list[dict[str, Any]]


def draw(figure: Figure, place: Box, height_in: float, panel: dict[str, Any], prometheus: Prometheus) -> Axes:
    """Draw a panel into its place; return its axes, without a title of their own.

    Args:
        figure: with its coordinates from 0 to 1.
        place: left, bottom, width, height.
        height_in: of the figure, inches.
        panel: as it is in the dashboard's JSON.
        prometheus: answers its queries.
    """
    left, bottom, width, height = place
    gap = 0.05 / height_in
    figure.patches.append(
        Rectangle(
            (left, bottom + gap),
            width,
            height - 2 * gap,
            transform=figure.transFigure,
            facecolor="white",
            edgecolor="#d8d9da",
            zorder=-1,
        )
    )
    title = _TITLE_IN / height_in
    figure.text(left + 0.004, bottom + height - gap - title * 0.55, panel["title"], size=9, weight="bold", va="center")
    inner = (left, bottom + gap, width, height - 2 * gap - title)
    axes = figure.add_axes(inner)
    kind = {"stat": _number, "timeseries": _trend, "status-history": _cells, "state-timeline": _cells, "table": _table}
    kind[panel["type"]](axes, panel, prometheus)
    return axes


def _number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = prometheus.instant(panel["targets"][0]["expr"])
    value = float(found[0]["value"][1]) if found else math.nan
    text = defaults.get("noValue", "none")
    if not math.isnan(value):
        text = _said(value, defaults)
    colour = "#c8c9ca" if math.isnan(value) else _colour(value, defaults["thresholds"]["steps"])
    axes.set_facecolor(colour)
    size = 20 if len(text) <= _SHORT else 13
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, size=size, weight="bold", color="white", ha="center", va="center"
    )
    _bare(axes)


def _trend(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    _inset(axes)
    series = [(name, times, values) for name, times, values in _asked(panel, prometheus)]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    floor: dict[float, float] = {}
    for place, (name, times, values) in enumerate(series):
        colour = _LINES[place % len(_LINES)]
        step = "post" if custom.get("lineInterpolation") == "stepAfter" else None
        moments = date2num(_moments(times))
        if stacked:
            below = [floor.get(at, 0.0) for at in times]
            heights = [0.0 if math.isnan(value) else value for value in values]
            if custom.get("drawStyle") == "bars":
                axes.bar(
                    moments, heights, bottom=below, width=0.8 * BAR_S / 86_400, color=colour, alpha=0.8, label=name
                )
            else:
                tops = [base + height for base, height in zip(below, heights, strict=True)]
                axes.fill_between(moments, below, tops, color=colour, alpha=0.65, lw=0, step="mid", label=name)
            floor |= {at: base + height for at, base, height in zip(times, below, heights, strict=True)}
        elif step:
            axes.step(moments, values, where="post", color=colour, lw=1.6, label=name)
        else:
            axes.plot(moments, values, color=colour, lw=1.4, label=name)
    top = max((value for _, _, values in series for value in values if not math.isnan(value)), default=0.0)
    axes.set_ylim(defaults.get("min", 0), max([top, *floor.values()]) * 1.06 or 1.0)
    _show_thresholds(axes, custom, defaults["thresholds"]["steps"])
    axes.yaxis.set_major_locator(FixedLocator(round_steps(*axes.get_ylim(), defaults["unit"])))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, defaults["unit"])))
    _time_axis(axes, prometheus)
    if not series:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", va="center", color=_GREY, size=11)
    else:
        columns = 2 if len(series) > 3 else 3
        handles, names = axes.get_legend_handles_labels()
        axes.legend(
            handles[:_LEGEND_ENTRIES],
            names[:_LEGEND_ENTRIES],
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.13),
            ncol=columns,
            fontsize=7,
            frameon=False,
            handlelength=1,
            borderaxespad=0,
            columnspacing=1,
        )


def round_steps(bottom: float, top: float, unit: str) -> list[float]:
    """Return where an axis has its numbers: round ones in the unit in which they are written."""
    size = size_of(max(abs(bottom), abs(top)), unit)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom / size, top / size)
    return [tick * size for tick in ticks if bottom <= tick * size <= top]


def _show_thresholds(axes: Axes, custom: dict[str, Any], steps: Sequence[dict[str, Any]]) -> None:
    if custom.get("thresholdsStyle", {}).get("mode") != "dashed":
        return
    top = axes.get_ylim()[1]
    for step in steps[1:]:
        # Grafana does not stretch the axis for a threshold either.
        if step["value"] <= top:
            axes.axhline(step["value"], color=_COLOURS[step["color"]], lw=1, ls="--")


def _cells(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    """Draw a row a series; each stretch of the same value is one cell in a timeline."""
    defaults = panel["fieldConfig"]["defaults"]
    merged = panel["type"] == "state-timeline"
    words = _words(defaults)
    series = sorted(_asked(panel, prometheus, points=240 if merged else 60), key=lambda one: one[0])
    longest = max((len(name) for name, _, _ in series), default=1)
    _inset(axes, left=min(0.4, 0.02 + longest * 0.085 / (axes.get_position().width * 18)))
    inches = axes.get_position().width * axes.figure.get_size_inches()[0]
    for row, (_, times, values) in enumerate(reversed(series)):
        for begin, end, value in _stretches(times, values, merged=merged):
            at, until = (float(moment) for moment in date2num(_moments([begin, end])))
            colour = words.get(value, ("", ""))[1] or _colour(value, defaults["thresholds"]["steps"])
            axes.add_patch(
                Rectangle(
                    (at, row + 0.08),
                    until - at,
                    0.84,
                    facecolor=_COLOURS.get(colour, colour),
                    lw=0.4,
                    edgecolor="white",
                )
            )
            text = words[value][0] if value in words else written(value, "none")
            if merged and len(text) * _CHARACTER_IN < (end - begin) * inches / (prometheus.ended - prometheus.began):
                axes.text(
                    (at + until) / 2, row + 0.5, text, ha="center", va="center", size=8, color="white", weight="bold"
                )
    axes.set_ylim(0, max(1, len(series)))
    axes.set_yticks([row + 0.5 for row in range(len(series))], [name for name, _, _ in reversed(series)], fontsize=7.5)
    _time_axis(axes, prometheus)
    axes.grid(visible=False)


def _stretches(times: Sequence[float], values: Sequence[float], *, merged: bool) -> list[tuple[float, float, float]]:
    width = times[1] - times[0] if len(times) > 1 else 1.0
    found: list[tuple[float, float, float]] = []
    for at, value in zip(times, values, strict=True):
        if math.isnan(value):
            continue
        if merged and found and found[-1][2] == value and at <= found[-1][1] + width / 2:
            found[-1] = (found[-1][0], at + width, value)
        else:
            found.append((at, at + width, value))
    return found


def _table(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    joined = panel["transformations"][0]["options"]["byField"]
    names = panel["transformations"][1]["options"]["renameByName"]
    titles = [names[f"Value #{target['refId']}"] for target in panel["targets"]]
    cells: dict[str, dict[str, float]] = {}
    for title, target in zip(titles, panel["targets"], strict=True):
        for series in prometheus.instant(target["expr"]):
            cells.setdefault(series["metric"].get(joined, ""), {})[title] = float(series["value"][1])
    looks = {
        one["matcher"]["options"]: {item["id"]: item["value"] for item in one["properties"]}
        for one in panel["fieldConfig"]["overrides"]
    }
    _bare(axes)
    rows = sorted(cells)
    text, colours = [], []
    for row in rows:
        text.append([row, *(_cell(cells[row].get(title), looks[title]) for title in titles)])
        colours.append(["white", *(_cell_colour(cells[row].get(title), looks[title]) for title in titles)])
    if not rows:
        return
    drawn = axes.table(
        text, cellColours=colours, colLabels=[names[joined], *titles], loc="upper center", cellLoc="center"
    )
    drawn.auto_set_font_size(value=False)
    drawn.set_fontsize(9.5)
    drawn.scale(1, 1.7)
    for cell in drawn.get_celld().values():
        cell.set_edgecolor("#e4e4e4")


def _said(value: float, look: dict[str, Any]) -> str:
    """Return a value's word, or the value in its unit."""
    words = _words(look)
    return words[value][0] if value in words else written(value, look["unit"], look.get("decimals"))


def _cell(value: float | None, look: dict[str, Any]) -> str:
    return "" if value is None else _said(value, look)


def _cell_colour(value: float | None, look: dict[str, Any]) -> str:
    if value is None:
        return "white"
    words = _words(look)
    if value in words:
        return _COLOURS[words[value][1]]
    colour = _colour(value, look["thresholds"]["steps"]) if "thresholds" in look else "white"
    return "white" if colour == "none" else colour


def note_annotations(axes: Axes, annotations: Sequence[tuple[dict[str, Any], Series]], prometheus: Prometheus) -> None:
    """Draw promotions and rollbacks as lines, episodes as shades."""
    for annotation, series in annotations:
        colour = _COLOURS[annotation["iconColor"]]
        for one in series:
            if annotation["useValueForTime"]:
                for moment in {float(value) / 1000 for _, value in one["values"]}:
                    if prometheus.began <= moment <= prometheus.ended:
                        axes.axvline(float(date2num(_moments([moment]))[0]), color=colour, lw=1, ls=(0, (4, 2)))
                continue
            times = [float(at) for at, _ in one["values"]]
            for begin, end, _ in _stretches(times, [1.0] * len(times), merged=True):
                axes.axvspan(*(float(at) for at in date2num(_moments([begin, end]))), color=colour, alpha=0.09, lw=0)


def _asked(
    panel: dict[str, Any], prometheus: Prometheus, *, points: int = 240
) -> list[tuple[str, list[float], list[float]]]:
    bars = "interval" in panel
    step = prometheus.step(points=points, bars=bars)
    found = []
    for target in panel["targets"]:
        for series in prometheus.over_time(target["expr"], points=points, bars=bars):
            times: list[float] = []
            values: list[float] = []
            for at, value in series["values"]:
                if times and not bars and at - times[-1] > 1.5 * step:
                    # A line must not go where nothing was.
                    times.append(times[-1] + step)
                    values.append(math.nan)
                times.append(float(at))
                values.append(float(value))
            found.append((_called(target["legendFormat"], series["metric"]), times, values))
    return found


def _called(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip() or "all"


def _colour(value: float, steps: Sequence[dict[str, Any]]) -> str:
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _COLOURS[reached[-1]]


def _words(look: dict[str, Any]) -> dict[float, tuple[str, str]]:
    return {
        float(value): (word["text"], word["color"])
        for mapping in look.get("mappings", [])
        for value, word in mapping["options"].items()
    }


def _moments(times: Sequence[float]) -> list[Any]:
    return [datetime.fromtimestamp(at, UTC) for at in times]


def _time_axis(axes: Axes, prometheus: Prometheus) -> None:
    begin, end = (float(at) for at in date2num(_moments([prometheus.began, prometheus.ended])))
    axes.set_xlim(begin, end)
    axes.set_xticks([begin + (end - begin) * part for part in (0.08, 0.29, 0.5, 0.71, 0.92)])
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if (end - begin) < 0.01 else "%H:%M"))
    axes.tick_params(labelsize=7.5, length=2, colors="#555")
    axes.grid(visible=True, color="#ececec", lw=0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def _inset(axes: Axes, *, left: float | None = None) -> None:
    """Leave room for labels at the left and for time and legend below."""
    box = axes.get_position()
    indent = 0.028 if left is None else box.width * left
    axes.set_position(
        (
            box.x0 + indent,
            box.y0 + box.height * (0.28 if left is None else 0.12),
            box.width - indent - 0.006,
            box.height * (0.68 if left is None else 0.84),
        )
    )


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
