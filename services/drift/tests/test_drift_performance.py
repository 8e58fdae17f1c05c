"""Performance of labelled rows: what counts as the same label, by version, and an interval that covers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modelyard_drift.domain.performance import Answered, beyond, by_version

V1, V2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def answered(truth: Any, answer: Any, *, version: str = V1, score: float | None = None) -> Answered:
    return Answered(version, truth, answer, score)


@pytest.mark.parametrize(
    ("truth", "answer", "same"),
    [
        (1, 1.0, True),
        (1, True, True),
        (0.0, False, True),
        ("1", 1, True),
        (1, 0, False),
        (0.5, 0.5, True),
        ("yes", "yes", True),
        ("yes", True, False),
        ("Yes", "yes", False),
    ],
    ids=str,
)
def test_labels_are_the_same_whatever_type_the_sender_gave_them(truth: Any, answer: Any, same: bool) -> None:
    [overall, _] = by_version("accuracy", [answered(truth, answer)])
    assert overall.value == float(same)


def test_the_positive_class_is_found_whatever_its_type() -> None:
    rows = [answered(1, 1.0), answered(0, 1), answered(True, 0)]
    values = {by_version("f1", rows, positive=positive)[0].value for positive in (1, 1.0, True, "1")}
    assert values == {0.5}


def test_all_rows_come_first_and_then_each_version() -> None:
    rows = [answered(1, 1), answered(1, 0), answered(1, 1, version=V2)]
    found = [(entry.version, round(entry.value, 3), entry.rows) for entry in by_version("accuracy", rows)]
    assert found == [("", 0.667, 3), (V1, 0.5, 2), (V2, 1.0, 1)]


def test_a_metric_that_rows_do_not_allow_is_left_out() -> None:
    assert by_version("roc_auc", [answered(1, 1, score=0.9)]) == []
    assert by_version("roc_auc", [answered(1, 1, score=0.9), answered(0, 0, score=None)]) == []
    assert by_version("accuracy", []) == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(answered("n/a", 1.0), id="a label that is text"),
        pytest.param(answered(1.0, None), id="an answer that is nothing"),
        pytest.param(answered(1.0, "high"), id="an answer that is text"),
        pytest.param(answered(10**400, 1.0), id="a number beyond all floats"),
    ],
)
@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_a_row_that_is_no_number_is_left_out_of_a_regression(metric: str, broken: Answered) -> None:
    rows = [answered(1.0, 1.5), answered(2.0, 2.0), answered(4.0, 3.0)]
    assert by_version(metric, [*rows, broken]) == by_version(metric, rows)
    assert by_version(metric, [broken]) == []


def test_an_error_too_large_to_square_gives_no_metric_instead_of_an_infinite_one() -> None:
    assert by_version("rmse", [answered(1e300, 0.0), answered(1.0, 1.0)]) == []


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    st.sampled_from(["accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss"]),
)
def test_an_interval_is_finite_and_in_order(rows: list[tuple[int, int, float]], metric: str) -> None:
    found = by_version(metric, [answered(truth, answer, score=score) for truth, answer, score in rows], positive=1)
    for entry in found:
        assert np.isfinite([entry.low, entry.value, entry.high]).all()
        assert entry.low <= entry.high
        assert entry.rows == len(rows)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@example([True] * 10)
def test_the_interval_of_an_accuracy_holds_its_value(hits: list[bool]) -> None:
    [overall, _] = by_version("accuracy", [answered(1, int(hit)) for hit in hits])
    assert 0 <= overall.low <= overall.value <= overall.high <= 1


@pytest.mark.parametrize(("metric", "truth"), [("accuracy", 0.8), ("rmse", 1.0)])
def test_about_nineteen_of_twenty_intervals_cover_the_truth(metric: str, truth: float) -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        if metric == "accuracy":
            rows = [answered(1, int(hit)) for hit in generator.uniform(size=150) < truth]
        else:
            rows = [answered(0.0, float(error)) for error in generator.normal(0, truth, 150)]
        overall = by_version(metric, rows)[0]
        covered += overall.low <= truth <= overall.high
    assert 86 <= covered <= 100  # of 95 expected, four standard deviations


@pytest.mark.parametrize(
    ("value", "below", "above", "is_beyond"),
    [
        (0.59, 0.6, None, True),
        (0.6, 0.6, None, False),
        (2.1, None, 2.0, True),
        (2.0, None, 2.0, False),
        (1.0, 0.5, 2.0, False),
        (1.0, None, None, False),
    ],
)
def test_a_bound_itself_is_not_beyond(value: float, below: float | None, above: float | None, is_beyond: bool) -> None:
    assert beyond(value, below=below, above=above) is is_beyond
