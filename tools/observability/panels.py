"""Panels in one style: each says its unit, what it shows, and from where on it is bad.

Thin over Grafana's own builders, which know the shape of a panel; what is decided here is how ours look. A panel has
thresholds, or says why there can be none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, statushistory, table
from grafana_foundation_sdk.builders import timeseries as timeseries_builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.observability.limits import Thresholds

__all__ = ["DATASOURCE", "Column", "Query", "Unjudged", "Words", "columns", "history", "number", "states", "trend"]

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

P = TypeVar("P")
"""A builder of a panel; all have these methods, and no common type that says so."""
Words = Mapping[float, tuple[str, str]]
"""A value to its word and colour."""

_INFORMATION: Thresholds = ((None, "blue"),)
_OF_ITS_COLUMNS: Thresholds = ((None, "text"), (0, "text"))


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Stands where thresholds would: no value is bad by itself, for this reason. The panel says so."""

    why: str


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called: ``{{label}}`` is replaced."""

    expr: str
    legend: str = ""


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    bad: Thresholds | Unjudged,
    decimals: int | None = None,
    none: str = "none",
    width: int = 3,
    words: Words | None = None,
) -> stat.Panel:
    """Return one big number, coloured by how bad it is; ``none`` is shown while there is none."""
    panel = (
        stat.Panel()
        .color_mode(shapes.BigValueColorMode.BACKGROUND)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(none)
        # Nothing by nothing is NaN, which Grafana would show as a number.
        .with_target(_target(Query(f"({expr}) > -Inf"), "A", instant=True))
    )
    if words is not None:
        panel.mappings(_mappings(words))
    if decimals is not None:
        panel.decimals(decimals)
    return _styled(panel, title, description, unit, bad, width=width, height=4)


def trend(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    bad: Thresholds | Unjudged,
    width: int = 8,
    style: Literal["line", "step", "bars", "stack"] = "line",
    most: float | None = None,
) -> timeseries_builder.Panel:
    """Return lines over time; thresholds are drawn as dashed lines."""
    panel = (
        timeseries_builder.Panel()
        .fill_opacity(60 if style in ("bars", "stack") else 8)
        .line_width(1 if style == "stack" else 2)
        .show_points(shapes.VisibilityMode.NEVER)
        .min(0)
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if style == "step":
        panel.line_interpolation(shapes.LineInterpolation.STEP_AFTER)
    if style == "bars":
        # A bar counts what happened between two bars; between two scrapes nothing can be counted.
        panel.draw_style(shapes.GraphDrawStyle.BARS).interval("1m")
    if style in ("bars", "stack"):
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if not isinstance(bad, Unjudged):
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    if most is not None:
        panel.max(most)
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    return _styled(_asking(panel, queries), title, description, unit, bad, width=width, height=8)


def history(
    title: str, description: str, query: Query, *, unit: str, bad: Thresholds, width: int = 24, height: int = 9
) -> statushistory.Panel:
    """Return a heat map: a row a series, a cell a moment, coloured by its value."""
    panel = (
        statushistory.Panel()
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_value(shapes.VisibilityMode.AUTO)
        .row_height(0.9)
        .fill_opacity(85)
        .legend(_legend())
        .decimals(2)
        .max_data_points(60)
    )
    return _styled(_asking(panel, [query]), title, description, unit, bad, width=width, height=height)


def states(
    title: str, description: str, query: Query, *, words: Words, width: int = 12, height: int = 8
) -> statetimeline.Panel:
    """Return a band a series that changes its colour with its state."""
    panel = (
        statetimeline.Panel()
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_value(shapes.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .mappings(_mappings(words))
        .legend(_legend())
    )
    steps: Thresholds = [(None, "text"), *((value, colour) for value, (_, colour) in sorted(words.items()))]
    return _styled(_asking(panel, [query]), title, description, "none", steps, width=width, height=height)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: an instant query that gives one number a row."""

    title: str
    expr: str
    unit: str = "none"
    bad: Thresholds = ()
    words: Words | None = None
    decimals: int | None = None


def columns(
    title: str, description: str, key: str, cells: Sequence[Column], *, width: int = 24, height: int = 7
) -> table.Panel:
    """Return a table with a row for each value of a label, joined over one query a column."""
    panel = table.Panel().cell_height(shapes.TableCellHeight.SM).show_header(True)
    for place, cell in enumerate(cells):
        panel.with_target(_target(Query(cell.expr), chr(ord("A") + place), instant=True, as_table=True))
        panel.override_by_name(cell.title, _properties(cell))
    names = {f"Value #{chr(ord('A') + place)}": cell.title for place, cell in enumerate(cells)}
    organised = {
        "excludeByName": {f"Time {place}": True for place in range(1, len(cells) + 1)} | {"Time": True},
        "indexByName": {name: place for place, name in enumerate([key, *names])},
        "renameByName": names | {key: key.capitalize()},
    }
    panel.with_transformation(model.DataTransformerConfig("joinByField", options={"byField": key, "mode": "outer"}))
    panel.with_transformation(model.DataTransformerConfig("organize", options=organised))
    return _styled(panel, title, description, "none", _OF_ITS_COLUMNS, width=width, height=height)


def _properties(cell: Column) -> list[model.DynamicConfigValue]:
    found: list[tuple[str, Any]] = [("unit", cell.unit)]
    if cell.decimals is not None:
        found.append(("decimals", cell.decimals))
    if cell.words is not None:
        found.append(("mappings", _mappings(cell.words)))
    if cell.bad:
        found.append(("thresholds", _steps(cell.bad).build()))
    if cell.bad or cell.words is not None:
        found.append(("custom.cellOptions", {"type": "color-background", "mode": "basic"}))
    return [model.DynamicConfigValue(id_val=name, value=value) for name, value in found]


def _styled(
    panel: P, title: str, description: str, unit: str, bad: Thresholds | Unjudged, *, width: int, height: int
) -> P:
    built: Any = panel
    if isinstance(bad, Unjudged):
        description, bad = f"{description} No threshold: {bad.why}", _INFORMATION
    elif not _in_order(bad):
        raise ValueError(f"{title}: give thresholds in order, or Unjudged with the reason")
    built.title(title).description(description).unit(unit).thresholds(_steps(bad))
    built.datasource(DATASOURCE).span(width).height(height)
    return panel


def _in_order(bad: Thresholds) -> bool:
    values = [value for value, _ in bad]
    found = [value for value in values if value is not None]
    return values[:1] == [None] and len(found) == len(values) - 1 > 0 and found == sorted(found)


def _asking(panel: P, queries: Sequence[Query]) -> P:
    built: Any = panel
    for place, query in enumerate(queries):
        built.with_target(_target(query, chr(ord("A") + place)))
    return panel


def _target(query: Query, ref: str, *, instant: bool = False, as_table: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(ref)
    if as_table:
        target.format(PromQueryFormat.TABLE)
    return target.instant() if instant else target.range()


def _steps(bad: Thresholds) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=colour) for value, colour in bad]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(words: Words) -> list[model.ValueMapping]:
    options = {
        f"{value:g}": model.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(sorted(words.items()))
    }
    return [model.ValueMap(options=options)]


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(False)
