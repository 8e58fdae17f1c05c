"""How grave a window is, and which faults of its data keep it from training a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_drift.domain.severity import (
    ORDER,
    PREDICTION_NAME,
    Severity,
    drifted_features,
    quality_faults,
    severity_of,
    worst,
)
from modelyard_stats.baseline import PREDICTION, build_baseline
from modelyard_stats.counters import Counters
from modelyard_stats.scoring import FeatureScore, WindowScore

SEVERITIES = st.sampled_from(ORDER)


def score(name: str, keys: str = "", *, matters: bool = True) -> FeatureScore:
    """A feature's score; keys: e for the effect, s for significance."""
    return FeatureScore(name, 0.3, 0.01, 0.01, "e" in keys, "s" in keys, matters, 0.5, 0.0, 0.0, 0.0)


def window(*features: FeatureScore, prediction: str | None = None) -> WindowScore:
    watched = None if prediction is None else score(PREDICTION, prediction)
    return WindowScore(sufficient=True, features=features, prediction=watched)


@pytest.mark.parametrize(
    ("scored", "severity", "drifted"),
    [
        pytest.param(window(score("a")), "none", {}, id="no key"),
        pytest.param(window(score("a", "e")), "low", {}, id="effect alone"),
        pytest.param(window(score("a", "s")), "low", {}, id="significance alone"),
        pytest.param(window(score("a", "es")), "high", {"a": "high"}, id="both on a feature that matters"),
        pytest.param(window(score("a", "es", matters=False)), "low", {"a": "low"}, id="both on one that does not"),
        pytest.param(
            window(score("a", "es", matters=False), score("b", "es")),
            "high",
            {"a": "low", "b": "high"},
            id="each feature by itself",
        ),
        pytest.param(window(score("a"), prediction="es"), "high", {PREDICTION_NAME: "high"}, id="the prediction"),
        pytest.param(window(score("a"), prediction="e"), "low", {}, id="one key of the prediction"),
        pytest.param(WindowScore(sufficient=False, features=(), prediction=None), "none", {}, id="too few rows"),
    ],
)
def test_severity_follows_from_the_keys(scored: WindowScore, severity: str, drifted: dict[str, str]) -> None:
    assert severity_of(scored) == severity
    assert drifted_features(scored) == drifted


@given(SEVERITIES, SEVERITIES, SEVERITIES)
def test_the_worst_of_several_does_not_depend_on_their_order(a: Severity, b: Severity, c: Severity) -> None:
    assert worst(a, b) == worst(b, a)
    assert worst(worst(a, b), c) == worst(a, worst(b, c))
    assert ORDER.index(worst(a, b)) == max(ORDER.index(a), ORDER.index(b))


def faults(values: list[Any], *, max_missing: float = 0.05, required: bool = True, reference_missing: int = 0) -> Any:
    reference: list[Any] = [float(number) for number in range(100)]
    reference[:reference_missing] = [None] * reference_missing
    baseline = build_baseline({"x": reference}, importances={"x": 1.0}, predictions=[])
    counters = Counters.empty(baseline)
    counters.add(baseline, {"x": values}, [None] * len(values))
    return quality_faults(baseline, counters, max_missing=max_missing, required={"x": required})


@pytest.mark.parametrize(
    ("missing", "arguments", "faulty"),
    [
        pytest.param(5, {}, False, id="as many as allowed"),
        pytest.param(6, {}, True, id="one more"),
        pytest.param(20, {"required": False}, False, id="an optional feature may be missing"),
        pytest.param(24, {"reference_missing": 20}, False, id="the reference missed nearly as many"),
        pytest.param(30, {"reference_missing": 20}, True, id="far more than the reference"),
        pytest.param(1, {"max_missing": 0.0}, True, id="none allowed"),
    ],
)
def test_values_that_are_missing_and_were_there_are_a_fault(
    missing: int, arguments: dict[str, Any], faulty: bool
) -> None:
    found = faults([None] * missing + [1.0] * (100 - missing), **arguments)
    assert bool(found) is faulty
    assert all(fault.startswith(f"x: {missing}.0% of its values are missing") for fault in found)


def test_text_where_numbers_were_is_a_fault() -> None:
    assert faults(["n/a", *([1.0] * 99)]) == ("x: 1 values are text where the reference has numbers",)


def test_a_window_without_sampled_rows_has_no_fault() -> None:
    assert faults([]) == ()
