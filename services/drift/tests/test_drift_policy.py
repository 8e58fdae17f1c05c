"""The retrain policy as a table: each kind of decision, what goes before what, and its edges in event time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_drift.domain.policy import Decision, DecisionKind, Limits, decide
from modelyard_drift.domain.severity import ORDER, Severity

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY, WEEK, TICK = timedelta(days=1), timedelta(days=7), timedelta(microseconds=1)
LIMITS = Limits(at_least="high", cooldown=DAY, max_per_week=3)
OBSTACLES: list[tuple[DecisionKind, dict[str, Any]]] = [
    ("no_policy", {"at_least": None}),
    ("below_severity", {"severity": "low"}),
    ("paused", {"paused": True}),
    ("quality", {"faults": ["x: 50.0% of its values are missing"]}),
    ("cooldown", {"commands": [NOW]}),
    ("budget", {"max_per_week": 0}),
    ("off", {"commands_on": False}),
]
"""What keeps a command back, in the order in which it is named."""


def judge(
    severity: Severity = "high", commands: Sequence[datetime] = (), faults: Sequence[str] = (), **limits: Any
) -> Decision:
    return decide(severity, replace(LIMITS, **limits), now=NOW, commands=commands, faults=faults)


def test_the_table_has_every_kind_of_decision() -> None:
    assert {kind for kind, _ in OBSTACLES} | {"command"} == set(get_args(DecisionKind))


def test_with_nothing_in_the_way_training_is_commanded() -> None:
    assert judge() == Decision("command", "high severity, at least high")


@pytest.mark.parametrize(("kind", "obstacle"), OBSTACLES, ids=[kind for kind, _ in OBSTACLES])
def test_each_obstacle_alone_keeps_the_command_back_and_says_why(kind: str, obstacle: dict[str, Any]) -> None:
    decision = judge(**obstacle)
    assert decision.kind == kind
    assert decision.reason


@pytest.mark.parametrize("place", range(len(OBSTACLES)), ids=[kind for kind, _ in OBSTACLES])
def test_of_several_obstacles_the_first_is_named(place: int) -> None:
    several: dict[str, Any] = {}
    for _, obstacle in OBSTACLES[place:]:
        several |= obstacle
    assert judge(**several).kind == OBSTACLES[place][0]


@pytest.mark.parametrize("at_least", ORDER)
@pytest.mark.parametrize("severity", ORDER)
def test_a_severity_commands_from_the_limit_on(severity: Severity, at_least: Severity) -> None:
    expected = "command" if ORDER.index(severity) >= ORDER.index(at_least) else "below_severity"
    assert judge(severity, at_least=at_least).kind == expected


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        pytest.param(NOW - DAY, "command", id="exactly over"),
        pytest.param(NOW - DAY + TICK, "cooldown", id="not quite over"),
        pytest.param(NOW, "cooldown", id="in the same moment"),
        pytest.param(NOW - WEEK, "command", id="long over"),
    ],
)
def test_the_edge_of_the_cooldown(last: datetime, kind: str) -> None:
    assert judge(commands=[NOW - 30 * DAY, last]).kind == kind


def test_the_cooldown_runs_from_the_newest_command_whatever_their_order() -> None:
    decision = judge(commands=[NOW - timedelta(hours=1), NOW - 3 * DAY])
    assert decision.kind == "cooldown"
    assert decision.reason == "the last command was at 2026-03-10 11:00; again from 2026-03-11 11:00"


def test_without_a_cooldown_the_next_window_may_command() -> None:
    assert judge(commands=[NOW], cooldown=timedelta(0)).kind == "command"


@pytest.mark.parametrize(
    ("oldest", "kind"),
    [
        pytest.param(NOW - WEEK, "command", id="a command leaves the week exactly seven days later"),
        pytest.param(NOW - WEEK + TICK, "budget", id="and not before"),
    ],
)
def test_the_edge_of_the_weekly_budget(oldest: datetime, kind: str) -> None:
    assert judge(commands=[oldest, NOW - 4 * DAY, NOW - 2 * DAY]).kind == kind


@given(
    st.lists(st.integers(1, 60 * 24 * 60), max_size=200),
    st.integers(0, 5),
    st.integers(0, 3 * 24 * 60),
)
def test_no_week_ever_sees_more_commands_than_the_budget_and_none_within_the_cooldown(
    minutes: list[int], budget: int, cooldown: int
) -> None:
    limits = replace(LIMITS, max_per_week=budget, cooldown=timedelta(minutes=cooldown))
    commands: list[datetime] = []
    for minute in sorted(minutes):
        now = NOW + timedelta(minutes=minute)
        if decide("high", limits, now=now, commands=commands, faults=()).kind == "command":
            commands.append(now)
    for place, moment in enumerate(commands):
        assert sum(moment - WEEK < other <= moment for other in commands) <= budget
        assert place == 0 or moment - commands[place - 1] >= limits.cooldown
