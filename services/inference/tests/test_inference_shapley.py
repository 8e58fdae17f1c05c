"""Shapley values: their laws, three methods that agree where they should, estimates that say how far off they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_inference.domain.shapley import Contributions, Play, additive, exact, exact_cost, sampled, walk_cost

Function = Callable[[Any], Any]


def game(function: Function, row: Any, background: Any) -> Play:
    """Return a function of rows as what is asked about one row."""

    def play(taken: Any, rows: Any) -> Any:
        return np.asarray(function(np.where(taken, row, background[rows])), dtype=np.float64)

    return play


def by_definition(play: Play, features: int, background: int) -> Any:
    """Return the values as Shapley wrote them: the average over all orders of what each adds when it comes."""
    total = np.zeros(features)
    orders = list(permutations(range(features)))

    def worth(coming: list[int]) -> float:
        taken = np.zeros((background, features), bool)
        taken[:, coming] = True
        return float(play(taken, np.arange(background)).mean())

    for order in orders:
        for place, feature in enumerate(order):
            total[feature] += worth([*order[:place], feature]) - worth(list(order[:place]))
    return total / len(orders)


def rough(rows: Any) -> Any:
    """Return what no sum over features is."""
    return np.tanh(rows[:, 0] * rows[:, 1]) + (rows[:, 2] > 0) * rows[:, 0] + 0.3 * rows[:, 1]


def some(seed: int, features: int, background: int) -> tuple[Any, Any]:
    chance = np.random.default_rng(seed)
    return chance.normal(size=features), chance.normal(size=(background, features))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), features=st.integers(3, 5), background=st.integers(1, 6))
def test_the_formula_gives_what_the_definition_says_and_sums_to_the_answer(
    seed: int, features: int, background: int
) -> None:
    row, others = some(seed, features, background)
    play = game(rough, row, others)

    found = exact(play, features, background)

    assert found.values == pytest.approx(by_definition(play, features, background), abs=1e-9)
    assert found.base == pytest.approx(float(rough(others).mean()))
    assert found.answer == pytest.approx(float(rough(row[None, :])[0]))
    assert found.residue == pytest.approx(0, abs=1e-9)
    assert found.evaluations == exact_cost(features, background)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_what_changes_nothing_adds_nothing_and_likes_add_alike(seed: int) -> None:
    row, others = some(seed, 4, 5)
    row[1], others[:, 1] = row[0], others[:, 0]
    play = game(lambda rows: np.sin(rows[:, 0] + rows[:, 1]) * rows[:, 2], row, others)

    found = exact(play, 4, 5).values

    assert found[3] == pytest.approx(0, abs=1e-12)
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), features=st.integers(1, 6))
def test_a_sum_over_features_needs_one_question_each(seed: int, features: int) -> None:
    row, others = some(seed, features, 7)
    play = game(lambda rows: np.exp(rows / 3).sum(axis=1), row, others)

    quick = additive(play, features, 7)

    assert quick.values == pytest.approx(exact(play, features, 7).values, abs=1e-9)
    assert quick.residue == pytest.approx(0, abs=1e-9)
    assert quick.evaluations == (features + 1) * 7 + 1


def test_a_model_that_is_no_sum_is_found_out_by_the_sum() -> None:
    row, others = some(3, 3, 10)

    assert abs(additive(game(rough, row, others), 3, 10).residue) > 1e-3


def test_estimates_are_within_their_standard_errors_and_whole_rounds_sum_to_the_answer() -> None:
    misses, row_count = 0, 40
    for seed in range(row_count):
        row, others = some(seed, 5, 8)
        play = game(rough, row, others)
        truth, found = exact(play, 5, 8).values, sampled(play, 5, 8, pairs=64, seed=seed)
        assert found.errors is not None
        assert found.residue == pytest.approx(0, abs=1e-9), "64 pairs are eight rounds of eight"
        misses += int((np.abs(found.values - truth) > 2.6 * found.errors + 1e-12).sum())
        assert found.evaluations == 8 + 1 + 64 * walk_cost(5)

    # One in a hundred is outside by chance alone; five in a hundred would be a wrong error.
    assert misses <= 0.05 * row_count * 5


def test_a_walk_and_its_reverse_are_nearer_than_two_walks() -> None:
    """The reason for pairs: of features that act together the one gains what the other loses."""
    row, others = some(1, 4, 8)
    play = game(lambda rows: rows[:, 0] * rows[:, 1] + rows[:, 2] * rows[:, 3], row, others[:1])
    estimates = np.array([sampled(play, 4, 1, pairs=2, seed=seed).values for seed in range(200)])
    truth = exact(play, 4, 1).values

    assert estimates == pytest.approx(np.tile(truth, (200, 1)), abs=1e-9), "of pairs it is exact here"


def test_the_same_seed_gives_the_same_estimate_and_time_ends_it_early() -> None:
    row, others = some(5, 6, 8)
    play = game(rough, row, others)
    answers = iter([True, True, False])

    first, again = sampled(play, 6, 8, pairs=40, seed=1), sampled(play, 6, 8, pairs=40, seed=1)
    early = sampled(play, 6, 8, pairs=1000, seed=1, goes_on=lambda: next(answers), pairs_at_once=4)

    assert first.values.tolist() == again.values.tolist()
    assert early.evaluations == 8 + 1 + 12 * walk_cost(6)


def test_an_estimate_never_asks_for_one_pair_alone() -> None:
    row, others = some(5, 3, 4)

    found: Contributions = sampled(game(rough, row, others), 3, 4, pairs=1, goes_on=lambda: False)

    assert found.errors is not None
    assert np.isfinite(found.errors).all()
