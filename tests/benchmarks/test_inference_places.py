"""Where a run measures follows from what was asked for, and from nothing else."""

from __future__ import annotations

import pytest
from bench.inference.names import DIALECTS, MODELS
from bench.inference.places import Extent, places
from bench.inference.record import Place


@pytest.mark.parametrize("extent", ["all", "quick", "ablations"])
def test_nothing_is_measured_at_rows_or_connections_not_asked_for(extent: Extent) -> None:
    [only] = places(["linear"], ["json", "binary"], [1], [1], extent)[:1]
    assert only == Place(model="linear", dialect="json", rows=1, connections=1)

    for place in places(list(MODELS), list(DIALECTS), [1], [1, 64], extent):
        assert (place.rows, place.connections) in {(1, 1), (1, 64)}


@pytest.mark.parametrize("extent", ["all", "quick", "ablations"])
def test_no_protocol_is_measured_that_was_not_asked_for(extent: Extent) -> None:
    for place in places(list(MODELS), ["binary"], [1, 32], [1, 16, 64], extent):
        assert place.dialect == "binary"


def test_the_goals_places_come_first_and_every_protocol_is_measured_there() -> None:
    everywhere = places(["forest"], list(DIALECTS), [1, 32], [1, 16, 64], "all")

    goals = [(1, 1), (1, 64), (32, 16)]
    first = everywhere[: len(goals) * len(DIALECTS)]
    assert {(place.dialect, place.rows, place.connections) for place in first} == {
        (dialect, *size) for dialect in DIALECTS for size in goals
    }
    assert {place.dialect for place in everywhere[len(first) :]} == {"json"}
    assert len(everywhere) == len(first) + 3


def test_ablations_are_measured_where_the_goals_look_and_where_the_log_has_most_to_write() -> None:
    measured = places(["linear"], list(DIALECTS), [1, 32], [1, 16, 64], "ablations")

    assert [(place.dialect, place.rows, place.connections) for place in measured] == [
        ("json", 1, 1),
        ("json", 1, 64),
        ("json", 32, 16),
        ("binary", 32, 16),
    ]
