"""Laws of counters and distances, over all the inputs that hypothesis thinks of."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_stats.baseline import MAX_CATEGORIES, MAX_EDGES, Baseline, build_baseline, build_feature
from modelyard_stats.bins import FeatureBaseline, count_bins
from modelyard_stats.chi_square import chi_square_test
from modelyard_stats.counters import Counters, FeatureCounter
from modelyard_stats.ks import ks_test
from modelyard_stats.psi import psi
from modelyard_stats.scoring import coarsen, score_window

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=30)
PAIRS = st.integers(2, 20).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 1000), min_size=size, max_size=size)] * 2)
)
NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.sampled_from([10**400, "x"])


def counted(reference: FeatureBaseline, values: list[Any]) -> FeatureCounter:
    counter = FeatureCounter(np.zeros(reference.bins, dtype=np.int64))
    counter.add(reference, values)
    return counter


REFERENCES = {
    "numeric": build_feature("f", np.linspace(-1, 1, 500)),
    "few values": build_feature("f", [1, 2, 2, 3, None]),
    "constant": build_feature("f", [0.5] * 20),
    "nothing": build_feature("f", [None] * 20),
    "categorical": build_feature("f", ["a", "b", "a", None]),
    "boolean": build_feature("f", [True, False, True]),
}


@given(st.sampled_from(sorted(REFERENCES)), st.lists(NUMBERS, max_size=40), st.randoms())
def test_every_row_is_counted_once_whatever_it_holds_and_in_whatever_order(
    kind: str, values: list[Any], chance: Any
) -> None:
    reference = REFERENCES[kind]
    counter = counted(reference, values)
    shuffled = list(values)
    chance.shuffle(shuffled)

    assert counter.rows == len(values)
    assert int(counter.bins.sum()) + counter.missing + counter.wrong_type == len(values)
    again = counted(reference, shuffled)
    assert again.bins.tolist() == counter.bins.tolist()
    assert (again.missing, again.out_of_range, again.wrong_type) == (
        counter.missing,
        counter.out_of_range,
        counter.wrong_type,
    )


@given(
    st.sampled_from(sorted(REFERENCES)), st.lists(st.lists(NUMBERS, max_size=10), min_size=1, max_size=5), st.randoms()
)
def test_parts_of_a_feature_merge_in_any_order_to_the_whole(kind: str, parts: list[list[Any]], chance: Any) -> None:
    reference = REFERENCES[kind]
    whole = counted(reference, [value for part in parts for value in part])
    counters = [counted(reference, part) for part in parts]
    chance.shuffle(counters)
    merged = counters[0]
    for counter in counters[1:]:
        merged = merged.merge(counter)

    assert merged.bins.tolist() == whole.bins.tolist()
    assert (merged.rows, merged.missing, merged.out_of_range, merged.wrong_type, merged.unseen) == (
        whole.rows,
        whole.missing,
        whole.out_of_range,
        whole.wrong_type,
        whole.unseen,
    )


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan"), np.float32("nan")], ids=repr)
@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_a_missing_value_of_any_kind_is_missing_and_in_no_bin(kind: str, missing: Any) -> None:
    counter = counted(REFERENCES[kind], [missing, missing])

    assert (counter.rows, counter.missing, int(counter.bins.sum()), counter.out_of_range) == (2, 2, 0, 0)


@pytest.mark.parametrize(("value", "place"), [(math.inf, -1), (-math.inf, 0), (1e300, -1), (-(10**400), 0)])
@pytest.mark.parametrize("kind", ["numeric", "few values", "constant"])
def test_an_infinite_number_is_in_the_outermost_bin_and_out_of_range(kind: str, value: float, place: int) -> None:
    counter = counted(REFERENCES[kind], [value])

    assert counter.bins[place] == counter.bins.sum() == 1
    assert counter.out_of_range == 1


def test_a_text_among_numbers_is_a_wrong_type_and_not_missing() -> None:
    counter = counted(REFERENCES["numeric"], ["1.0", 0.5])

    assert (counter.wrong_type, counter.missing, int(counter.bins.sum())) == (1, 0, 1)


def test_a_boolean_is_counted_as_json_writes_it() -> None:
    assert REFERENCES["boolean"].categories == ("false", "true")
    assert counted(REFERENCES["boolean"], [True, "true", np.bool_(False), 7]).bins.tolist() == [1, 2, 1]


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_a_reference_counts_its_own_rows_in_ascending_bins(values: list[float | None]) -> None:
    reference = build_feature("f", values)

    assert list(reference.edges) == sorted(set(reference.edges))
    assert sum(reference.counts) + reference.missing == reference.rows == len(values)
    assert reference.counts == tuple(count_bins(reference, values))
    assert len(reference.counts) == reference.bins <= MAX_EDGES + 1


def test_the_state_of_a_feature_is_bounded_by_the_reference_and_not_by_the_data() -> None:
    numbers = build_feature("f", np.random.default_rng(0).normal(size=50_000))
    names = build_feature("f", [f"name-{number}" for number in range(5_000)])

    assert numbers.bins <= MAX_EDGES
    assert names.bins == MAX_CATEGORIES + 1
    assert names.counts[-1] == 5_000 - MAX_CATEGORIES


@given(
    st.dictionaries(
        st.text("abc", min_size=1),
        st.lists(st.none() | st.floats(-5, 5), min_size=5, max_size=5)
        | st.lists(st.none() | st.text("xy"), min_size=5, max_size=5),
        max_size=4,
    )
)
def test_a_baseline_is_the_same_after_json_that_others_can_read(columns: dict[str, list[Any]]) -> None:
    baseline = build_baseline(columns, importances={}, predictions=[0.1] * 5, metrics={"accuracy": 0.5})
    text = baseline.to_json()

    assert Baseline.from_json(text) == baseline
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_baseline_of_infinite_numbers_is_json_too() -> None:
    reference = build_feature("f", [1.0, 2.0, math.inf, -math.inf])
    baseline = Baseline(features=(reference,), prediction=None, rows=4, metrics={})

    assert Baseline.from_json(baseline.to_json()) == baseline
    json.loads(baseline.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert sum(reference.counts) == 4
    assert (reference.low, reference.high) == (1.0, 2.0)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other/v1"}', '{"format": "modelyard.baseline/v1"}'])
def test_what_is_no_baseline_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Baseline.from_json(text)


@given(COUNTS)
def test_every_distance_of_a_distribution_to_itself_is_nothing(counts: list[int]) -> None:
    assert psi(counts, counts) == 0.0
    assert ks_test(counts, counts) == (0.0, 1.0)
    statistic, p_value = chi_square_test(counts, counts)
    assert statistic == pytest.approx(0, abs=1e-9)
    assert p_value == pytest.approx(1)


@given(COUNTS, st.integers(2, 50))
def test_more_rows_in_the_same_shares_are_no_drift(counts: list[int], times: int) -> None:
    many = [times * count for count in counts]

    assert ks_test(counts, many)[1] == pytest.approx(1)
    assert chi_square_test(counts, many)[1] == pytest.approx(1)
    assert psi([100 * count for count in counts], [100 * count for count in many]) < 0.01


@given(PAIRS)
def test_distances_are_symmetric_and_in_their_range(pair: tuple[list[int], list[int]]) -> None:
    p, q = pair

    assert 0 <= psi(p, q) < math.inf
    assert psi(p, q) == pytest.approx(psi(q, p))
    for test in (ks_test, chi_square_test):
        statistic, p_value = test(p, q)
        assert statistic >= 0
        assert 0 <= p_value <= 1
        assert (statistic, p_value) == pytest.approx(test(q, p))
    assert ks_test(p, q)[0] <= 1 + 1e-12


@given(PAIRS, st.randoms())
def test_psi_and_chi_square_do_not_care_for_the_order_of_bins(pair: tuple[list[int], list[int]], chance: Any) -> None:
    p, q = pair
    order = list(range(len(p)))
    chance.shuffle(order)
    turned = [p[i] for i in order], [q[i] for i in order]

    assert psi(*turned) == pytest.approx(psi(p, q))
    assert chi_square_test(*turned) == pytest.approx(chi_square_test(p, q))


@given(PAIRS, st.integers(2, 12))
def test_merging_bins_keeps_every_count(pair: tuple[list[int], list[int]], bins: int) -> None:
    p, q = (np.asarray(side, dtype=np.int64) for side in pair)
    coarse_p, coarse_q = coarsen(p, q, bins)

    assert (coarse_p.sum(), coarse_q.sum()) == (p.sum(), q.sum())
    assert coarse_p.size == coarse_q.size <= p.size
    assert ks_test(coarse_p, coarse_q)[0] <= ks_test(p, q)[0] + 1e-12


@settings(max_examples=25)
@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_window_of_anything_at_all_is_scored_with_finite_numbers(values: list[Any]) -> None:
    columns = {"numeric": np.linspace(-1, 1, 500), "categorical": ["a", "b"] * 250, "constant": [0.5] * 500}
    baseline = build_baseline(columns, importances={"numeric": 1.0}, predictions=np.linspace(0, 1, 500))
    counters = Counters.empty(baseline)
    counters.add(baseline, dict.fromkeys(columns, values), [0.5] * len(values))

    scores = score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=1)

    assert scores.sufficient
    for entry in (*scores.features, scores.prediction):
        assert entry is not None
        assert all(map(math.isfinite, (entry.psi, entry.p_value, entry.q_value)))
        assert all(0 <= share <= 1 for share in (entry.missing, entry.unseen, entry.out_of_range))


def test_a_feature_of_which_too_few_rows_tell_is_not_scored() -> None:
    baseline = build_baseline({"a": [1.0, 2.0], "b": [1.0, 2.0]}, importances={}, predictions=[1.0, 2.0])
    counters = Counters.empty(baseline)
    counters.add(baseline, {"a": [1.0] * 9, "b": [9.0] * 4}, [1.0] * 9)

    score = score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=5)

    assert (score.sufficient, [entry.feature for entry in score.features]) == (True, ["a"])
    assert score.prediction is not None


def test_a_column_that_a_window_lacks_is_missing() -> None:
    baseline = build_baseline({"a": [1.0, 2.0]}, importances={}, predictions=[])
    counters = Counters.empty(baseline)
    counters.add(baseline, {}, [None] * 7)

    assert (counters.rows, counters.features["a"].missing) == (7, 7)
