"""Dashboards that somebody can read at night: each panel says what it shows, in which unit, and when it is bad."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest

from tests.observability.expressions import alerts, dashboards, panel_expressions, panels
from tools.observability.drawing import round_steps
from tools.observability.limits import Thresholds
from tools.observability.panels import Query, Unjudged, trend
from tools.observability.units import written

PANELS = {f"{name}/{panel['title']}": panel for name, panel in panels()}
UIDS = {
    "overview": "modelyard-overview",
    "inference": "modelyard-inference",
    "drift": "modelyard-drift",
    "training": "modelyard-training",
    "health": "modelyard-health",
}
"""Links and bookmarks hold on to these: they never change."""


def test_the_dashboards_keep_their_identity() -> None:
    assert {name: document["uid"] for name, document in dashboards().items()} == UIDS


@pytest.mark.parametrize("name", UIDS)
def test_a_dashboard_is_generated_not_edited_and_asks_from_wide_to_narrow(name: str) -> None:
    document = dashboards()[name]
    variables = [variable["name"] for variable in document["templating"]["list"]]

    assert variables == ["datasource", "namespace", "model", "version"][: len(variables)]
    assert len(variables) == {"inference": 4, "health": 2}.get(name, 3)
    assert document["editable"] is False
    assert document["timezone"] == "utc"
    assert document["tags"] == ["modelyard"]
    [link] = document["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == (
        "dashboards",
        ["modelyard"],
        True,
        True,
    )


@pytest.mark.parametrize("name", UIDS)
def test_promotions_rollbacks_and_episodes_are_marked(name: str) -> None:
    marks = {one["name"]: one for one in dashboards()[name]["annotations"]["list"]}

    assert set(marks) == {"Promotions", "Rollbacks", "Episodes"}
    assert len({one["iconColor"] for one in marks.values()}) == 3
    assert [marks[one]["useValueForTime"] for one in ("Promotions", "Rollbacks", "Episodes")] == [True, True, False]


@pytest.mark.parametrize("name", UIDS)
def test_panels_have_ids_and_places_of_their_own(name: str) -> None:
    found = dashboards()[name]["panels"]
    boxes = [panel["gridPos"] for panel in found]

    assert len({panel["id"] for panel in found}) == len(found)
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    assert not [1 for one, two in itertools.combinations(boxes, 2) if _overlap(one, two)]


def _overlap(one: dict[str, int], two: dict[str, int]) -> bool:
    apart = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
    return not (apart or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"])


@pytest.mark.parametrize("name", UIDS)
def test_the_first_row_is_big_numbers_that_fit_side_by_side(name: str) -> None:
    document = dashboards()[name]
    first = [panel for panel in document["panels"] if panel["gridPos"]["y"] == 1]

    assert document["panels"][0]["title"].endswith("?")
    assert {panel["type"] for panel in first} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in first) == 24


@pytest.mark.parametrize("place", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_when_it_is_bad(place: str) -> None:
    panel: dict[str, Any] = PANELS[place]
    defaults = panel["fieldConfig"]["defaults"]

    assert re.fullmatch(r"[A-Z].*\.", panel["description"]), "a description is a sentence"
    assert written(1.0, defaults["unit"])
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert judged(panel) != (" No threshold: " in panel["description"]), "thresholds, or why there can be none"
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] == "stat":
        assert panel["options"]["colorMode"] == "background"


def judged(panel: dict[str, Any]) -> bool:
    """Return whether a panel says by itself from where on something is bad; lines must draw it."""
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "table":
        looks = [{one["id"] for one in column["properties"]} for column in panel["fieldConfig"]["overrides"]]
        return any({"thresholds", "custom.cellOptions"} <= look for look in looks)
    values = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
    assert values == sorted(values)
    drawn = panel["type"] != "timeseries" or defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed"
    return bool(values) and drawn


def test_lines_without_thresholds_are_the_exception() -> None:
    lines = [panel for panel in PANELS.values() if panel["type"] == "timeseries"]

    assert sum(map(judged, lines)) > 0.55 * len(lines)


@pytest.mark.parametrize("bad", [(), ((None, "green"),), ((1, "red"),), ((None, "green"), (2, "red"), (1, "orange"))])
def test_a_panel_that_judges_nothing_and_does_not_say_why_cannot_be_made(bad: Thresholds) -> None:
    with pytest.raises(ValueError, match="A line: give thresholds in order, or Unjudged with the reason"):
        trend("A line", "It goes up.", Query("up"), unit="none", bad=bad)


def test_a_panel_that_cannot_judge_says_why() -> None:
    made = trend("A line", "It goes up.", Query("up"), unit="none", bad=Unjudged("up is good.")).build()

    assert made.description == "It goes up. No threshold: up is good."


SAME = [
    ("drift/Age of the champion's data", "ModelIsStale"),
    ("drift/Labels late", "LabelsAreMissing"),
    ("drift/Rows not looked at", "DriftIsBehind"),
    ("training/Longest wait", "TrainingQueueIsStuck"),
    ("training/Schedules overdue by", "TrainingIsOverdue"),
    ("training/Time in the step", "RolloutIsHeld"),
    ("training/Longest step", "RolloutIsHeld"),
    ("training/Waits for approval", "PromotionWaits"),
    ("training/Failed in a day", "TrainingFails"),
    ("training/Refused in a week", "GateRefuses"),
    ("inference/Spool", "SpoolGrows"),
    ("inference/Age of the routing", "RoutingIsOld"),
    ("health/Registry to inference: routing", "RoutingIsOld"),
    ("health/Errors by route", "ServiceFails"),
    ("health/Tasks that failed", "TaskFails"),
    ("health/Objects that failed", "OperatorCannotReconcile"),
    ("inference/Errors", "InferenceAvailabilityBurns"),
    ("overview/Burn rate over one hour", "InferenceAvailabilityBurns"),
]


@pytest.mark.parametrize(("place", "alert"), SAME, ids=[place for place, _ in SAME])
def test_a_panel_is_bad_from_where_its_alert_tells_somebody(place: str, alert: str) -> None:
    """The numbers of an alert stand behind its ``>``; what counts events is half below what it tells of."""
    expressions = [rule["expr"] for rule in alerts() if rule["alert"] == alert]
    numbers = [text.split(" * ") for expr in expressions for text in re.findall(r"> ([\d.]+(?: \* [\d.]+)?)", expr)]
    limits = {float(one) for number in numbers for one in number} | {math.prod(map(float, one)) for one in numbers}
    steps = {step["value"] for step in PANELS[place]["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]}

    assert steps & (limits | {limit + 0.5 for limit in limits})


@pytest.mark.parametrize("place", panel_expressions())
def test_a_query_is_narrowed_to_the_chosen_namespace_and_its_window_is_the_graphs(place: str) -> None:
    expr = panel_expressions()[place]

    assert "$namespace" in expr
    windows = set(re.findall(r"\[([^\]]+)\]", expr))
    panel = PANELS[place.rsplit("/", 1)[0]]
    if panel["type"] == "stat":
        assert windows <= {"$__rate_interval", "1h", "1d", "7d"}
    else:
        # Bars count each moment once; lines look back far enough for a rate, and farther for what is seldom.
        seldom = re.search("run_duration|register_seconds", expr)
        assert windows <= {"$__interval" if "interval" in panel else "6h" if seldom else "$__rate_interval"}


def test_what_a_dashboard_can_be_narrowed_to_its_queries_use() -> None:
    for name, document in dashboards().items():
        text = " ".join(expr for place, expr in panel_expressions().items() if place.startswith(f"{name}/"))
        for variable in document["templating"]["list"][1:]:
            assert f"${variable['name']}" in text, f"{name} does not use ${variable['name']}"


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.00542, "s", None, "5.42 ms"),
        (90, "s", None, "1.5 min"),
        (0, "s", None, "0 s"),
        (0.0123, "percentunit", 2, "1.23%"),
        (-0.0001, "percentunit", 0, "0%"),
        (25, "percent", None, "25%"),
        (3 * 2**20, "bytes", None, "3 MiB"),
        (12.34, "reqps", 1, "12.3 req/s"),
        (1234.5, "none", None, "1234"),
        (float("nan"), "none", None, "NaN"),
    ],
)
def test_numbers_are_written_with_their_unit(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert written(value, unit, decimals) == text


@pytest.mark.parametrize(
    ("top", "unit", "texts"),
    [
        (66 * 86_400, "s", ["0 s", "20 d", "40 d", "60 d"]),
        (0.25, "s", ["0 s", "50 ms", "100 ms", "150 ms", "200 ms", "250 ms"]),
        (200 * 2**20, "bytes", ["0 B", "50 MiB", "100 MiB", "150 MiB", "200 MiB"]),
        (1, "percentunit", ["0%", "20%", "40%", "60%", "80%", "100%"]),
    ],
)
def test_an_axis_has_round_numbers_in_the_unit_in_which_they_are_written(
    top: float, unit: str, texts: list[str]
) -> None:
    assert [written(tick, unit) for tick in round_steps(0, top, unit)] == texts


def test_a_unit_that_nobody_can_write_is_refused() -> None:
    with pytest.raises(ValueError, match="furlong"):
        written(1, "furlong")
