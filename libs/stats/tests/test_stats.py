"""Laws of the counters, and what the two-key alarm must and must not say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_stats.baseline import PREDICTION, Baseline, build_baseline, build_feature
from modelyard_stats.bins import count_bins
from modelyard_stats.counters import Counters
from modelyard_stats.fdr import benjamini_hochberg
from modelyard_stats.intervals import bootstrap, wilson
from modelyard_stats.metrics import compute
from modelyard_stats.scoring import WindowScore, score_window


def make_baseline(rows: int = 5000, seed: int = 0) -> Baseline:
    g = np.random.default_rng(seed)
    columns = {
        "normal": g.normal(size=rows),
        "skewed": g.exponential(size=rows),
        "category": g.choice(["a", "b", "c"], size=rows, p=[0.6, 0.3, 0.1]).tolist(),
        "still": np.full(rows, 0.5),
    }
    return build_baseline(
        columns, importances={"normal": 0.6, "skewed": 0.4}, predictions=g.uniform(size=rows), metrics={}
    )


def draw(rows: int, seed: int, **changed: object) -> dict[str, list[object]]:
    g = np.random.default_rng(seed)
    columns = {
        "normal": g.normal(size=rows),
        "skewed": g.exponential(size=rows),
        "category": g.choice(["a", "b", "c"], size=rows, p=[0.6, 0.3, 0.1]),
        "still": np.full(rows, 0.5),
    }
    columns.update(changed)  # type: ignore[arg-type]
    return {name: list(values) for name, values in columns.items()}


def score(baseline: Baseline, columns: dict[str, list[object]], seed: int = 99) -> WindowScore:
    counters = Counters.empty(baseline)
    rows = len(columns["normal"])
    counters.add(baseline, columns, list(np.random.default_rng(seed).uniform(size=rows)))
    return score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=200)


def drifted(result: WindowScore) -> set[str]:
    return {feature.feature for feature in result.features if feature.drifted}


@pytest.mark.parametrize("rows", [200, 500, 2000, 20_000])
def test_at_most_one_false_alarm_in_a_hundred_windows_without_drift(rows: int) -> None:
    baseline = make_baseline()

    alarms = sum(bool(drifted(score(baseline, draw(rows, seed)))) for seed in range(1000, 1100))

    assert alarms <= 1


def test_a_shift_of_half_a_deviation_is_found() -> None:
    moved = np.random.default_rng(5).normal(0.5, size=2000)

    assert drifted(score(make_baseline(), draw(2000, 1, normal=moved))) == {"normal"}


def test_a_constant_that_comes_alive_is_found_and_matters() -> None:
    alive = np.random.default_rng(5).uniform(size=500)

    result = score(make_baseline(), draw(500, 1, still=alive))

    assert drifted(result) == {"still"}
    assert next(f for f in result.features if f.feature == "still").matters


def test_one_outlier_changes_nothing() -> None:
    columns = draw(2000, 1)
    columns["normal"][0] = 1e12

    assert drifted(score(make_baseline(), columns)) == set()


def test_a_category_never_seen_is_counted_as_unseen() -> None:
    result = score(make_baseline(), draw(1000, 1, category=["new"] * 1000))

    category = next(f for f in result.features if f.feature == "category")
    assert category.unseen == 1.0
    assert category.drifted


def test_a_window_below_the_floor_is_insufficient_and_says_nothing() -> None:
    result = score(make_baseline(), draw(199, 1))

    assert not result.sufficient
    assert result.features == ()


def test_a_baseline_survives_json() -> None:
    baseline = make_baseline(500)

    assert Baseline.from_json(baseline.to_json()) == baseline


VALUES = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-5, 5)), st.one_of(st.none(), st.sampled_from(["a", "b", "zz"])), st.floats(0, 1)
    ),
    max_size=60,
)


@settings(max_examples=50)
@given(VALUES, st.integers(0, 60))
def test_counting_in_two_parts_and_merging_equals_counting_at_once(rows: list[tuple[object, ...]], cut: int) -> None:
    baseline = make_baseline(300)

    def count(part: list[tuple[object, ...]]) -> Counters:
        counters = Counters.empty(baseline)
        columns = {"normal": [r[0] for r in part], "category": [r[1] for r in part]}
        counters.add(baseline, columns, [r[2] for r in part])
        return counters

    whole = count(rows).to_document()
    assert count(rows[:cut]).merge(count(rows[cut:])).to_document() == whole
    assert count(rows[cut:]).merge(count(rows[:cut])).to_document() == whole
    assert Counters.from_document(whole).to_document() == whole


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_keep_the_order_of_p_values_and_are_never_smaller(p_values: list[float]) -> None:
    q_values = benjamini_hochberg(p_values)

    assert all(q >= p - 1e-12 for p, q in zip(p_values, q_values, strict=True))
    assert [q for _, q in sorted(zip(p_values, q_values, strict=True))] == sorted(q_values)


def test_the_prediction_is_scored_under_its_own_name() -> None:
    result = score(make_baseline(), draw(1000, 1))

    assert result.prediction is not None
    assert result.prediction.feature == PREDICTION


@pytest.mark.parametrize(
    ("name", "expected"), [("roc_auc", 0.875), ("accuracy", 0.75), ("balanced_accuracy", 0.75), ("f1", 0.8)]
)
def test_metrics_agree_with_their_textbook_values(name: str, expected: float) -> None:
    truth, guess, chance = [0, 0, 1, 1], [0, 1, 1, 1], [0.1, 0.6, 0.6, 0.9]

    assert compute(name, truth, guess, chance) == pytest.approx(expected)


def test_a_metric_that_rows_do_not_allow_is_none() -> None:
    assert compute("roc_auc", [1, 1], [1, 1], [0.5, 0.6]) is None
    assert compute("accuracy", [], []) is None


def test_intervals_contain_the_value_and_shrink_with_rows() -> None:
    few, many = wilson(8, 10), wilson(800, 1000)
    hits = np.random.default_rng(1).random(1000) < 0.8
    low, high = bootstrap(lambda rows: float(hits[rows].mean()), 1000) or (0.0, 0.0)

    assert few[0] < 0.8 < few[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert low < hits.mean() < high


def test_a_constant_that_was_learned_in_32_bits_has_not_moved_in_64() -> None:
    reference = build_feature("c", np.full(10, 0.1, dtype=np.float32))
    assert reference.kind == "constant"
    assert count_bins(reference, [0.1, 0.2, 0.0]).tolist() == [1, 1, 1]
