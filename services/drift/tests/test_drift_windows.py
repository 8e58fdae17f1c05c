"""Windows as pure functions: each row in exactly one, the same ones however the stream is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_drift.adapters.records import progress_from, progress_values
from modelyard_drift.adapters.tables import ProgressRow
from modelyard_drift.domain.windows import Closed, OpenWindow, Row, WindowRule, cut, feed, first_window
from modelyard_drift.usecases.ports import Progress
from modelyard_stats.baseline import build_baseline

START = datetime(2026, 1, 1, tzinfo=UTC)
V1, V2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
BASELINE = build_baseline(
    {"x": [float(value) for value in range(20)], "kind": ["a", "b"] * 10},
    importances={"x": 1.0},
    predictions=[value / 20 for value in range(20)],
)
HOURLY = WindowRule(rows=None, span=timedelta(hours=1))
TENS = WindowRule(rows=10, span=None)


def row(seq: int, minute: int, *, sampled: bool = True) -> Row:
    features = {"x": float(seq % 25), "kind": "abc"[seq % 3]} if sampled else {}
    return Row(seq, 1, V1, START + timedelta(minutes=minute), features, (seq % 10) / 10, sampled)


def rows(minutes: Sequence[int], *, first_seq: int = 1) -> list[Row]:
    return [row(first_seq + place, minute, sampled=place % 4 != 3) for place, minute in enumerate(minutes)]


def plain(window: OpenWindow) -> dict[str, Any]:
    """A window as values that compare."""
    return {name: getattr(window, name) for name in OpenWindow.__slots__ if name != "counters"} | {
        "counters": window.counters.to_document()
    }


def fed(parts: Sequence[Sequence[Row]], rule: WindowRule) -> tuple[OpenWindow, list[Closed]]:
    window, closed = first_window(V1, BASELINE), []
    for part in parts:
        window, some = feed(window, part, BASELINE, rule)
        closed += some
    return window, closed


def test_a_feature_that_rows_do_not_carry_is_not_counted_and_null_is_missing() -> None:
    carries = [replace(row(seq, 0), features={"x": None, "kind": "a"}) for seq in range(4)]
    redacted = [replace(row(seq, 0), features={"kind": "a"}) for seq in range(4, 9)]

    window, _ = fed([carries, redacted], TENS)

    x, kind = window.counters.features["x"], window.counters.features["kind"]
    assert (x.rows, x.missing, kind.rows, window.counters.rows) == (4, 4, 9, 9)


RULES = st.one_of(
    st.integers(1, 15).map(lambda number: WindowRule(rows=number, span=None)),
    st.integers(1, 90).map(lambda minutes: WindowRule(rows=None, span=timedelta(minutes=minutes))),
)
MINUTES = st.lists(st.integers(0, 400), max_size=60)


class TestLaws:
    @given(MINUTES, RULES, st.lists(st.integers(0, 60), max_size=6))
    def test_any_split_of_the_rows_gives_the_same_windows(
        self, minutes: list[int], rule: WindowRule, cuts: list[int]
    ) -> None:
        stream = rows(minutes)
        edges = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
        parts = [stream[begin:end] for begin, end in pairwise(edges)]
        whole, closed = fed([stream], rule)
        split, closed_split = fed(parts, rule)
        assert plain(split) == plain(whole)
        assert [(plain(one.window), one.by) for one in closed_split] == [(plain(one.window), one.by) for one in closed]

    @given(MINUTES, RULES)
    def test_every_row_is_in_exactly_one_window_and_windows_follow_each_other(
        self, minutes: list[int], rule: WindowRule
    ) -> None:
        stream = rows(minutes)
        last, closed = fed([stream], rule)
        windows = [one.window for one in closed] + [last]
        assert [window.index for window in windows] == list(range(len(windows)))
        assert sum(window.rows for window in windows) == len(stream)
        assert [window.first_row for window in windows] == [
            sum(before.rows for before in windows[:place]) for place in range(len(windows))
        ]
        seqs = [seq for window in windows if window.rows for seq in range(window.first_seq, window.last_seq + 1)]
        assert seqs == [entry.seq for entry in stream]

    @given(MINUTES, RULES)
    def test_counters_hold_the_sampled_rows_and_no_others(self, minutes: list[int], rule: WindowRule) -> None:
        stream = rows(minutes)
        last, closed = fed([stream], rule)
        counted = sum(one.window.counters.rows for one in closed) + last.counters.rows
        assert counted == sum(entry.sampled for entry in stream)

    @given(MINUTES, st.integers(1, 15))
    def test_windows_by_rows_hold_exactly_that_many(self, minutes: list[int], number: int) -> None:
        last, closed = fed([rows(minutes)], WindowRule(rows=number, span=None))
        assert {one.window.rows for one in closed} <= {number}
        assert last.rows == len(minutes) % number

    @given(MINUTES, st.integers(1, 90))
    def test_no_row_of_a_window_by_event_time_is_a_span_or_more_after_its_first(
        self, minutes: list[int], span: int
    ) -> None:
        last, closed = fed([rows(minutes)], WindowRule(rows=None, span=timedelta(minutes=span)))
        for window in [*(one.window for one in closed), last]:
            if window.rows:
                assert window.starts_at is not None and window.time_until is not None
                assert window.time_until < window.starts_at + timedelta(minutes=span)

    @given(MINUTES, RULES)
    def test_an_open_window_survives_the_database(self, minutes: list[int], rule: WindowRule) -> None:
        window, _ = fed([rows(minutes)], rule)
        kept = progress_from(ProgressRow(**progress_values(Progress(window=window)))).window
        assert kept is not None
        assert plain(kept) == plain(window)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param([0, 30, 59], [], id="a span that is not over closes nothing"),
        pytest.param([0, 30, 60], [(2, 0, 30)], id="a row exactly one span later begins the next window"),
        pytest.param([0, 30, 500], [(2, 0, 30)], id="a gap makes no empty windows"),
        pytest.param([0, 500, 530, 561], [(1, 0, 0), (2, 500, 530)], id="after a gap a span begins with its first row"),
        pytest.param([100, 10, 159], [], id="a late row is counted and does not move the start"),
        pytest.param([100, 10, 159, 160], [(3, 10, 159)], id="nor the end"),
        pytest.param([0, 60, 5, 119], [(1, 0, 0)], id="a row later than its window is counted in the open one"),
    ],
)
def test_windows_by_event_time(minutes: list[int], expected: list[tuple[int, int, int]]) -> None:
    _, closed = fed([rows(minutes)], HOURLY)
    found = [(one.window.rows, _minute(one.window.time_from), _minute(one.window.time_until)) for one in closed]
    assert found == expected
    assert {one.by for one in closed} <= {"time"}


def _minute(at: datetime | None) -> int:
    assert at is not None
    return int((at - START).total_seconds() // 60)


class TestPromotion:
    def test_a_promotion_closes_what_was_begun_and_counts_on_the_new_edges(self) -> None:
        begun, _ = fed([rows(range(4))], TENS)
        fresh, closed = cut(begun, V2, BASELINE)
        assert closed is not None
        assert (closed.by, closed.window) == ("promotion", begun)
        assert (fresh.index, fresh.reference, fresh.first_row, fresh.rows, fresh.counters.rows) == (1, V2, 4, 0, 0)
        assert fresh.starts_at is None

    def test_a_window_without_rows_is_replaced_and_not_closed(self) -> None:
        empty, closed = fed([rows(range(10))], TENS)
        assert len(closed) == 1
        fresh, nothing = cut(empty, V2, BASELINE)
        assert nothing is None
        assert (fresh.index, fresh.reference, fresh.first_row) == (1, V2, 10)


class TestChangedRule:
    def test_a_window_that_is_already_larger_than_the_new_rule_closes_with_the_next_row(self) -> None:
        large, _ = fed([rows(range(8))], TENS)
        window, closed = feed(large, rows(range(8, 13), first_seq=9), BASELINE, WindowRule(rows=5, span=None))
        assert [one.window.rows for one in closed] == [8, 5]
        assert window.rows == 0

    def test_a_window_by_rows_that_becomes_one_by_time_keeps_its_start(self) -> None:
        begun, _ = fed([rows([0, 10])], TENS)
        _, closed = feed(begun, rows([59, 60], first_seq=3), BASELINE, HOURLY)
        assert [one.window.rows for one in closed] == [3]

    def test_an_open_window_that_an_older_version_wrote_starts_with_its_earliest_row(self) -> None:
        begun, _ = fed([rows([0, 10])], HOURLY)
        document = progress_values(Progress(window=begun))
        del document["window"]["starts_at"]
        older = progress_from(ProgressRow(**document)).window
        assert older is not None
        window, closed = feed(older, rows([70], first_seq=3), BASELINE, HOURLY)
        assert ([one.window.rows for one in closed], window.rows) == ([2], 1)


def test_feeding_changes_no_window_that_was_given() -> None:
    begun, _ = fed([rows(range(3))], TENS)
    before = plain(replace(begun))
    feed(begun, rows([5], first_seq=4), BASELINE, TENS)
    assert plain(begun) == before
