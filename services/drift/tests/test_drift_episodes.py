"""Episodes as pure functions: which windows lengthen one, open another, and end it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_drift.domain.episodes import CALM_WINDOWS, Episode, Glance, Sighting, close_all, follow, has_subsided
from modelyard_drift.domain.severity import ORDER, Severity

AT = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = "sha256:" + "1" * 64
SEVERITIES = st.sampled_from([severity for severity in ORDER if severity != "none"])
DRIFTED = st.dictionaries(st.sampled_from("abcde"), SEVERITIES, max_size=5)


def seen(window: int) -> Sighting:
    first = window * 100
    return Sighting(f"w{window}", first + 99, first, AT + timedelta(hours=window), REFERENCE)


def episode(*features: str, severity: Severity = "low", opened_row: int = 99) -> Episode:
    return Episode("ep-0", REFERENCE, features, severity, "w0", opened_row, 0, AT)


def follow_all(windows: list[dict[str, Severity]]) -> list[Episode]:
    open_episodes: list[Episode] = []
    for number, drifted in enumerate(windows):
        open_episodes, _ = follow(open_episodes, drifted, seen(number), new_id=f"ep-{number}")
    return open_episodes


class TestFollow:
    def test_the_first_drift_opens_one_episode_for_all_its_features(self) -> None:
        result, touched = follow([], {"b": "low", "a": "high"}, seen(3), new_id="ep-9")
        [opened] = result
        assert touched == result
        assert (opened.id, opened.features, opened.severity) == ("ep-9", ("a", "b"), "high")
        assert (opened.opened_window, opened.window_first_row, opened.opened_row) == ("w3", 300, 399)
        assert (opened.windows, opened.commanded, opened.closed_at) == (1, False, None)

    def test_the_same_features_again_lengthen_it(self) -> None:
        result, touched = follow([episode("a", "b")], {"a": "low"}, seen(1), new_id="unused")
        assert [(one.id, one.windows, one.features) for one in result] == [("ep-0", 2, ("a", "b"))]
        assert touched == result

    def test_a_feature_that_newly_crosses_opens_another_of_its_own(self) -> None:
        result, touched = follow([episode("a")], {"a": "low", "c": "high"}, seen(1), new_id="ep-1")
        assert [(one.id, one.features, one.windows) for one in result] == [("ep-0", ("a",), 2), ("ep-1", ("c",), 1)]
        assert touched == result

    def test_a_calm_window_touches_nothing(self) -> None:
        assert follow([episode("a")], {}, seen(1), new_id="unused") == ([episode("a")], [])

    @pytest.mark.parametrize(
        ("before", "now", "after"), [("low", "high", "high"), ("high", "low", "high"), ("critical", "high", "critical")]
    )
    def test_an_episode_is_as_grave_as_its_gravest_window(
        self, before: Severity, now: Severity, after: Severity
    ) -> None:
        result, _ = follow([episode("a", severity=before)], {"a": now}, seen(1), new_id="unused")
        assert result[0].severity == after

    @given(st.lists(DRIFTED, max_size=12))
    def test_every_feature_that_ever_drifted_is_in_exactly_one_open_episode(
        self, windows: list[dict[str, Severity]]
    ) -> None:
        named = [feature for one in follow_all(windows) for feature in one.features]
        assert sorted(named) == sorted({feature for drifted in windows for feature in drifted})

    @given(st.lists(DRIFTED, max_size=12), DRIFTED)
    def test_exactly_the_episodes_that_name_what_drifted_are_touched(
        self, windows: list[dict[str, Severity]], now: dict[str, Severity]
    ) -> None:
        before = follow_all(windows)
        result, touched = follow(before, now, seen(99), new_id="new")
        assert touched == [one for one in result if set(one.features) & set(now)]
        assert [one for one in result if one not in touched] == [
            one for one in before if not set(one.features) & set(now)
        ]


def glance(first_row: int, judged: str, crossed: str = "") -> Glance:
    return Glance(first_row, frozenset(judged), frozenset(crossed))


class TestSubsiding:
    @pytest.mark.parametrize(
        ("newest", "over"),
        [
            pytest.param([glance(200, "ab"), glance(100, "ab")], True, id="two calm windows"),
            pytest.param([glance(200, "ab", "c"), glance(100, "abc", "c")], True, id="others may cross"),
            pytest.param([glance(200, "ab")], False, id="one calm window may be chance"),
            pytest.param([glance(200, "ab"), glance(100, "ab", "b")], False, id="one of its features crossed"),
            pytest.param([glance(200, "ab"), glance(100, "a")], False, id="one of its features was not judged"),
            pytest.param([glance(200, "ab"), glance(100, "")], False, id="a window too small to judge"),
            pytest.param([glance(100, "ab"), glance(99, "ab")], False, id="a window that began before it opened"),
            pytest.param([], False, id="no window"),
        ],
    )
    def test_an_episode_is_over_when_all_its_names_were_judged_calm(self, newest: list[Glance], over: bool) -> None:
        assert has_subsided(episode("a", "b"), newest) is over
        assert has_subsided(episode("a", "b"), newest[::-1]) is over

    @given(st.lists(st.tuples(st.integers(0, 500), st.frozensets(st.sampled_from("abc"))), max_size=CALM_WINDOWS))
    def test_a_window_in_which_its_feature_crosses_never_ends_it(
        self, windows: list[tuple[int, frozenset[str]]]
    ) -> None:
        newest = [Glance(first, judged | {"a"}, frozenset("a")) for first, judged in windows]
        assert not has_subsided(episode("a"), newest)


def test_closing_says_when_and_by_what_and_changes_nothing_else() -> None:
    ended = close_all([episode("a"), episode("b", severity="high")], at=AT, by="promotion")
    assert [(one.closed_at, one.closed_by) for one in ended] == [(AT, "promotion")] * 2
    assert [(one.features, one.severity, one.windows) for one in ended] == [(("a",), "low", 1), (("b",), "high", 1)]
