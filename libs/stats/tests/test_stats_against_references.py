"""Our numbers beside those of SciPy and scikit-learn, on raw rows; and what chance alone makes of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from modelyard_stats.baseline import build_baseline, build_feature
from modelyard_stats.bins import count_bins
from modelyard_stats.chi_square import chi_square_test
from modelyard_stats.counters import Counters
from modelyard_stats.fdr import benjamini_hochberg
from modelyard_stats.intervals import bootstrap, wilson
from modelyard_stats.ks import ks_test
from modelyard_stats.metrics import compute, compute_all
from modelyard_stats.psi import noise, psi
from modelyard_stats.scoring import score_window
from scipy import stats
from sklearn import metrics

SMALL = st.lists(st.integers(0, 12), min_size=2, max_size=60)


def binned(reference: Any, current: Any) -> tuple[list[int], list[int]]:
    feature = build_feature("x", reference)
    return list(feature.counts), count_bins(feature, current).tolist()


@given(SMALL, st.data())
def test_ks_on_few_values_is_the_exact_statistic(reference: list[int], data: st.DataObject) -> None:
    assume(min(reference) < max(reference))
    current = data.draw(st.lists(st.sampled_from(reference), min_size=1, max_size=60))

    distance = ks_test(*binned(reference, current))[0]

    assert distance == pytest.approx(stats.ks_2samp(reference, current, method="asymp").statistic)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize(("rows", "current_rows"), [(5_000, 500), (20_000, 2_000), (500, 5_000)])
def test_binned_ks_is_under_the_exact_one_by_less_than_a_bin(rows: int, current_rows: int, shift: float) -> None:
    g = np.random.default_rng(rows)
    reference, current = g.normal(size=rows), g.normal(shift, 1, size=current_rows)
    exact = stats.ks_2samp(reference, current, method="asymp")

    distance, p_value = ks_test(*binned(reference, current))

    assert exact.statistic - 0.025 <= distance <= exact.statistic + 1e-12
    assert p_value >= exact.pvalue * 0.9, "binning may only make the test more careful"
    assert math.isclose(p_value, float(special_p(rows, current_rows, distance)), rel_tol=1e-9)


def special_p(n: int, m: int, distance: float) -> float:
    """Return Kolmogorov's limit by its series, 2 Σ (−1)^(k−1) exp(−2 k² λ²)."""
    squared = n * m / (n + m) * distance**2
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k**2 * squared) for k in range(1, 200)))


@given(st.lists(st.integers(20, 500), min_size=2, max_size=8), st.lists(st.integers(20, 500), min_size=8, max_size=8))
def test_chi_square_of_common_categories_is_scipys(reference: list[int], current: list[int]) -> None:
    table = np.asarray([reference, current[: len(reference)]])
    expected = stats.chi2_contingency(table, correction=False)
    assume(expected.expected_freq.min() >= 5)

    statistic, p_value = chi_square_test(*table)

    assert statistic == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue)


def test_chi_square_merges_rare_categories_before_it_judges() -> None:
    reference, current = [900, 90, 1, 2, 3, 4], [880, 100, 6, 5, 5, 4]
    merged = stats.chi2_contingency([[900, 90, 10], [880, 100, 20]], correction=False)

    # 4 + 4 rows of 2,000 expect 4 a side: rare; 3 + 5, 2 + 5 and 1 + 6 are rarer still.
    assert chi_square_test(reference, current) == pytest.approx((merged.statistic, merged.pvalue))


@given(st.lists(st.integers(0, 900), min_size=2, max_size=12), st.lists(st.integers(0, 900), min_size=12, max_size=12))
def test_psi_is_the_sum_of_both_relative_entropies(reference: list[int], other: list[int]) -> None:
    p, q = np.asarray(reference, float), np.asarray(other[: len(reference)], float)
    assume(p.sum() > 0 and q.sum() > 0 and ((p + q) > 0).all())
    smooth_p, smooth_q = p + 0.5, q + 0.5

    assert psi(p, q) == pytest.approx(stats.entropy(smooth_p, smooth_q) + stats.entropy(smooth_q, smooth_p), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_scipys(p_values: list[float]) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(list(stats.false_discovery_control(p_values, method="bh")))


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_is_scipys(rows: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, rows))
    expected = stats.binomtest(hits, rows).proportion_ci(method="wilson")

    assert wilson(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_bootstrap_agrees_with_scipys_and_repeats_itself() -> None:
    values = np.random.default_rng(3).exponential(size=400)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=2_000, rng=np.random.default_rng(1)
    ).confidence_interval

    ours = bootstrap(lambda rows: float(values[rows].mean()), 400)

    assert ours == bootstrap(lambda rows: float(values[rows].mean()), 400)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))


BINARY = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.01, 0.99)), min_size=2, max_size=50)


@given(BINARY)
def test_metrics_of_classifiers_are_scikit_learns(rows: list[tuple[bool, bool, float]]) -> None:
    truth, guess, chance = (list(column) for column in zip(*rows, strict=True))
    assume(len(set(truth)) == 2)
    names = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss")

    found = compute_all(names, truth, guess, chance)

    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, guess),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, guess),
            "f1": metrics.f1_score(truth, guess, zero_division=0.0),
            "roc_auc": metrics.roc_auc_score(truth, chance),
            "log_loss": metrics.log_loss(truth, chance, labels=[False, True]),
        }
    )


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=50))
def test_metrics_of_regressions_are_scikit_learns(rows: list[tuple[float, float]]) -> None:
    truth, guess = (list(column) for column in zip(*rows, strict=True))
    assume(np.ptp(truth) > 1e-3)

    assert compute_all(("rmse", "mae", "r2"), truth, guess) == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(truth, guess),
            "mae": metrics.mean_absolute_error(truth, guess),
            "r2": metrics.r2_score(truth, guess),
        }
    )


def test_a_positive_class_that_is_not_the_greatest_turns_f1_and_auc() -> None:
    truth, guess, chance = ["no", "yes", "yes", "no"], ["no", "no", "yes", "no"], [0.9, 0.6, 0.2, 0.8]

    assert compute("f1", truth, guess, positive="no") == pytest.approx(0.8)
    assert compute("roc_auc", truth, guess, chance, positive="no") == 1.0
    assert compute("roc_auc", truth, guess, chance) == 0.0


def test_a_name_that_is_no_metric_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="aucroc is not a metric; there is accuracy"):
        compute("aucroc", [0, 1], [0, 1], [0.1, 0.9])


def numeric_counts(g: np.random.Generator) -> tuple[list[int], list[int]]:
    return binned(g.normal(size=1_000), g.normal(size=300))


def category_counts(g: np.random.Generator) -> tuple[list[int], list[int]]:
    shares = [0.5, 0.3, 0.15, 0.05]
    return g.multinomial(2_000, shares).tolist(), g.multinomial(500, shares).tolist()


@pytest.mark.parametrize(
    ("test", "draw"), [(ks_test, numeric_counts), (chi_square_test, category_counts)], ids=["ks", "chi-square"]
)
def test_p_values_under_no_change_are_as_rare_as_they_say(test: Any, draw: Any) -> None:
    g, times = np.random.default_rng(17), 1_000
    p_values = np.asarray([test(*draw(g))[1] for _ in range(times)])

    for level in (0.01, 0.05, 0.2):
        rejected = int((p_values <= level).sum())
        spread = math.sqrt(times * level * (1 - level))
        assert rejected <= times * level + 4 * spread, f"more false alarms than {level} allows"
        assert rejected >= 0.4 * times * level - 4 * spread, f"so careful at {level} that it finds nothing"
    assert 0.4 < p_values.mean() < 0.75


@pytest.mark.parametrize(("rows", "bins"), [(200, 10), (1_000, 10), (1_000, 4)])
def test_psi_stays_under_its_noise_as_often_as_promised(rows: int, bins: int) -> None:
    g = np.random.default_rng(rows + bins)
    shares = np.full(bins, 1 / bins)
    over = sum(
        psi(g.multinomial(5_000, shares), g.multinomial(rows, shares)) > noise(5_000, rows, bins, quantile=0.99)
        for _ in range(2_000)
    )

    assert 2 <= over <= 40  # 20 are expected


@pytest.mark.parametrize("rows", [200, 1_000])
def test_the_two_key_alarm_on_thirty_features_is_silent_in_a_thousand_windows_without_drift(rows: int) -> None:
    g = np.random.default_rng(rows)
    names = [f"f{number}" for number in range(30)]
    baseline = build_baseline({name: g.gamma(2, size=4_000) for name in names}, importances={}, predictions=[])
    alarms = 0
    for _ in range(1_000 // len(names)):
        counters = Counters.empty(baseline)
        counters.add(baseline, {name: g.gamma(2, size=rows) for name in names}, [None] * rows)
        scored = score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=200)
        alarms += sum(feature.drifted for feature in scored.features)

    assert alarms == 0


def test_a_false_alarm_at_the_floor_is_rare_even_for_coarse_references() -> None:
    """A reference of few rows is itself noise; the first key has to know."""
    g = np.random.default_rng(11)
    alarms = 0
    for _ in range(400):
        baseline = build_baseline({"x": g.normal(size=300)}, importances={}, predictions=[])
        counters = Counters.empty(baseline)
        counters.add(baseline, {"x": g.normal(size=200)}, [None] * 200)
        scored = score_window(baseline, counters, psi_threshold=0.1, significance=0.01, min_rows=200)
        alarms += sum(feature.drifted for feature in scored.features)

    assert alarms <= 4
