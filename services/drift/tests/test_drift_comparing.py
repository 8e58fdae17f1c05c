"""Candidate against champion: which rows pair, what counts as disagreement, when a shift can be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_drift.domain.comparing import Reply, compare_sides, side_facts

V1, V2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def reply(
    number: int, prediction: Any = 1, *, role: str = "champion", score: float | None = None, error: bool = False
) -> Reply:
    version = V1 if role == "champion" else V2
    return Reply(f"p{number}/0", version, role, prediction, score, float(number), error)


def shadow(number: int, prediction: Any = 1, **rest: Any) -> Reply:
    return reply(number, prediction, role="shadow", **rest)


class TestSideFacts:
    def test_errors_count_as_errors_and_nowhere_else(self) -> None:
        facts = side_facts([reply(10, score=0.2), reply(30, score=0.4), reply(9000, score=1.0, error=True)])
        assert (facts.responses, facts.errors, facts.p50_ms) == (2, 1, 20.0)
        assert facts.mean_score == pytest.approx(0.3)

    def test_a_side_without_answers_has_no_latency(self) -> None:
        facts = side_facts([reply(1, error=True)])
        assert (facts.responses, facts.errors, facts.p50_ms, facts.p99_ms, facts.mean_score) == (0, 1, None, None, None)

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
    def test_half_the_answers_are_no_slower_than_the_median_and_none_than_the_slowest(self, times: list[float]) -> None:
        facts = side_facts(
            [Reply(str(place), V1, "champion", 1, None, time, False) for place, time in enumerate(times)]
        )
        assert facts.p50_ms is not None and facts.p99_ms is not None
        assert min(times) <= facts.p50_ms <= facts.p99_ms <= max(times)


class TestDisagreement:
    def test_only_rows_that_both_answered_are_pairs(self) -> None:
        champion = [reply(1), reply(2), reply(3, error=True)]
        pairs, disagreement, _ = compare_sides(champion, [shadow(2, 0), shadow(3, 0), shadow(4, 0)])
        assert (pairs, disagreement) == (1, 1.0)

    def test_a_failed_copy_is_no_pair(self) -> None:
        assert compare_sides([reply(1)], [shadow(1, error=True)])[:2] == (0, None)

    def test_without_pairs_nothing_is_said(self) -> None:
        assert compare_sides([reply(1)], [reply(2, role="candidate")]) == (0, None, None)

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
    def test_it_is_the_share_of_pairs_that_differ(self, answers: list[tuple[int, int]]) -> None:
        champion = [reply(place, first) for place, (first, _) in enumerate(answers)]
        copies = [shadow(place, second) for place, (_, second) in enumerate(answers)]
        pairs, disagreement, _ = compare_sides(champion, copies[::-1])
        assert pairs == len(answers)
        assert disagreement == pytest.approx(np.mean([first != second for first, second in answers]))


class TestShift:
    @staticmethod
    def sides(first: int, second: int, *, shift: float = 0.0) -> float | None:
        generator = np.random.default_rng(2)
        champion = [reply(place, score=float(generator.normal())) for place in range(first)]
        candidate = [shadow(place, score=float(generator.normal(shift))) for place in range(second)]
        return compare_sides(champion, candidate)[2]

    @pytest.mark.parametrize(("first", "second"), [(49, 500), (500, 49)])
    def test_below_fifty_rows_a_side_none_is_told(self, first: int, second: int) -> None:
        assert self.sides(first, second) is None

    def test_it_grows_with_the_distance_of_the_scores(self) -> None:
        near, far = self.sides(2000, 2000), self.sides(2000, 2000, shift=2.0)
        assert near is not None and far is not None
        assert near < far

    def test_without_scores_the_answers_are_compared(self) -> None:
        champion = [reply(place, "no" if place % 2 else "yes") for place in range(100)]
        shifts = [
            compare_sides(champion, [shadow(place, "no" if place % share else "yes") for place in range(100)])[2]
            for share in (2, 10)
        ]
        assert shifts[0] == pytest.approx(0.0, abs=1e-6)
        assert shifts[1] is not None and shifts[1] > 0.2

    def test_a_champion_that_always_says_the_same_gives_no_shift(self) -> None:
        assert (
            compare_sides([reply(p, score=0.5) for p in range(60)], [shadow(p, score=0.9) for p in range(60)])[2]
            is None
        )
