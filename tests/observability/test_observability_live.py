"""A real Prometheus watched a slice of the demo: every query of every panel and every rule has something to go by."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from tests.observability.expressions import (
    alerts,
    annotation_expressions,
    panel_expressions,
    recorded,
    rule_expressions,
    selectors,
    variable_expressions,
)
from tools.observability.render import render
from tools.observability.stage import Prometheus, StageError
from tools.observability.write import DASHBOARDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(480)]

ABSENT = {
    'job=~"modelyard-(registry|training|drift|operator)", route!~".*/ready|/health.*", status=~"5..': (
        "no service beside inference fails while all are up"
    ),
    "modelyard_inference_shadow_dropped_rows_total": "the demo's stream waits, so that no copy is dropped",
}
"""What goes wrong on no platform that is well, by a part of the query, and why. It must be without data still."""
QUIET = {
    "modelyard_inference_candidate_fallbacks_total": "no candidate of the demo is late",
    "ALERTS": "nothing has been wrong for long enough",
}
"""The same, but that a machine that does much else may have some of it."""
_ZERO = re.compile(r' or (?:vector\(0\)|label_replace\(vector\(0\), "\w+", "none", "", ""\))')
_FILTER = re.compile(r" (?:==|>) 0(?![.\d])")


def excused(expr: str, excuses: Mapping[str, str]) -> bool:
    return any(part in expr for part in excuses)


def bare(expr: str) -> str:
    """Return an expression without the zero that it shows where there is nothing, which would prove nothing.

    Nor does it prove anything that nothing is above or equal to zero: where a zero stands in for that, all is counted.
    """
    plain = _ZERO.sub("", expr)
    if plain != expr:
        plain = _FILTER.sub("", plain)
    # ``(bad or 0 * all) / all``
    return re.sub(r"\((.*?) or 0 \* .*\) / ", r"(\1) / ", plain)


def judge(watched: Prometheus, expr: str) -> None:
    """Demand data of an expression, and none of what has an excuse: one that nothing needs any more is found so."""
    found = watched.over_time(bare(expr))
    if excused(expr, ABSENT):
        assert found == [], f"this has data by now, and needs no excuse: {expr}"
    elif not excused(expr, QUIET):
        assert found, f"no data: {bare(expr)}"


def values(series: list[dict[str, Any]]) -> list[float]:
    return [float(value) for one in series for _, value in one.get("values", [])]


PANELS = panel_expressions()


@pytest.mark.parametrize("place", PANELS)
def test_a_panel_has_data(watched: Prometheus, place: str) -> None:
    judge(watched, PANELS[place])


@pytest.mark.parametrize("place", annotation_expressions())
def test_promotions_rollbacks_and_episodes_were_marked(watched: Prometheus, place: str) -> None:
    expr = annotation_expressions()[place]
    marked = values(watched.over_time(expr))

    assert marked
    if "* 1000" in expr:
        assert all(watched.began < at / 1000 < watched.ended for at in marked)


@pytest.mark.parametrize("place", variable_expressions())
def test_a_variable_has_something_to_choose_from(watched: Prometheus, place: str) -> None:
    assert watched.over_time(variable_expressions()[place])


@pytest.mark.parametrize("place", rule_expressions())
def test_a_rule_has_something_to_go_by(watched: Prometheus, place: str) -> None:
    """An alert that is silent because nothing is wrong looks like one that asks for what does not exist."""
    expr = rule_expressions()[place]
    watched.instant(expr)
    for selector in selectors(expr):
        judge(watched, selector.text)


@pytest.mark.parametrize("name", sorted(recorded()))
def test_what_is_recorded_has_values(watched: Prometheus, name: str) -> None:
    assert [value for value in values(watched.over_time(name)) if value == value]


def asked() -> list[str]:
    """Return all that is asked of the platform that was watched."""
    rules = [selector.text for expr in rule_expressions().values() for selector in selectors(expr)]
    return [*PANELS.values(), *annotation_expressions().values(), *rules]


def test_every_excuse_is_needed_by_some_query() -> None:
    assert [part for part in (*ABSENT, *QUIET) if not any(part in expr for expr in asked())] == []


def test_an_excuse_for_what_has_data_is_refused(watched: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ABSENT, "modelyard_registry_champion_number", "nobody is champion")

    with pytest.raises(AssertionError, match="needs no excuse"):
        judge(watched, "max(modelyard_registry_champion_number)")


@pytest.mark.parametrize(
    ("expr", "rest"),
    [
        ("sum(a) or vector(0)", "sum(a)"),
        ("count(up == 0) or vector(0)", "count(up)"),
        ("max(a) > 0.5", "max(a) > 0.5"),
        ('a or label_replace(vector(0), "route", "none", "", "")', "a"),
        ("(sum by (m) (rate(a[1m])) or 0 * sum by (m) (rate(b[1m]))) / sum(b)", "(sum by (m) (rate(a[1m]))) / sum(b)"),
        ("(sum(a) or vector(0)) / sum(b)", "(sum(a)) / sum(b)"),
    ],
)
def test_a_zero_in_the_place_of_nothing_proves_nothing(expr: str, rest: str) -> None:
    assert bare(expr) == rest


def test_a_query_that_prometheus_cannot_read_is_seen(watched: Prometheus) -> None:
    with pytest.raises(StageError, match="parse error"):
        watched.over_time("sum by (model (up)")


def test_prometheus_has_evaluated_every_rule_without_an_error(watched: Prometheus) -> None:
    groups = watched.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {rule["alert"] for rule in alerts()}
    # A machine that does much else answers late for real.
    assert {rule["name"] for rule in rules if rule.get("state") == "firing"} <= {"InferenceLatencyBurns"}


def test_the_loop_is_seen_from_drift_to_promotion(watched: Prometheus) -> None:
    champions = values(watched.over_time("max(modelyard_registry_champion_number)"))
    episodes = values(watched.over_time("max(modelyard_drift_episodes_total)"))
    candidates = values(watched.over_time('sum(modelyard_inference_requests_total{role="candidate"})'))
    runs = values(watched.over_time('max(modelyard_training_runs_count{state="succeeded"})'))

    assert max(champions) >= 2
    assert max(episodes) >= 1
    assert max(candidates) >= 1
    assert max(runs) >= 2


def test_the_numbers_are_those_of_the_stream(watched: Prometheus) -> None:
    answered = 'sum(modelyard_inference_requests_total{role=~"champion|candidate", outcome="answered"})'
    assert watched.home is not None
    rows = json.loads((watched.home / "demo-electricity" / "demo" / "result.json").read_text())["requests"]

    assert float(watched.instant(answered)[0]["value"][1]) == rows
    assert float(watched.instant("max(modelyard_drift_requests_rows)")[0]["value"][1]) == rows


@pytest.mark.parametrize("dashboard", sorted(file.stem for file in DASHBOARDS.glob("*.json")))
def test_a_dashboard_can_be_drawn(watched: Prometheus, tmp_path: Path, dashboard: str) -> None:
    target = tmp_path / "board.png"

    render(json.loads((DASHBOARDS / f"{dashboard}.json").read_text()), watched, target)

    pixels = image.imread(target)
    assert pixels.shape[1] >= 1200
    # It is not empty: green and blue of the first row, and lines.
    assert len({tuple((colour * 15).astype(int)) for colour in pixels[::7, ::7, :3].reshape(-1, 3)}) > 20
