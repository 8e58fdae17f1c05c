"""Laws of runs: together they are what was written, in order, and a reader never gets half of what was one write."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from modelyard_inference.adapters.spool_positions import Position
from modelyard_inference.adapters.spool_runs import Runs

MOST_ROWS, MOST_BYTES = 1000, 100_000


@dataclass(frozen=True)
class Write:
    size: int
    rows: int
    turns: bool
    """To a new file."""
    reads: int
    """How often the reader comes afterwards."""


writes = st.lists(
    st.builds(
        Write,
        size=st.integers(1, 90_000),
        rows=st.integers(1, MOST_ROWS),
        turns=st.booleans(),
        reads=st.integers(0, 2),
    ),
    max_size=40,
)


@given(writes)
def test_a_reader_gets_all_that_was_written_in_order(given: list[Write]) -> None:
    runs, segment, end = Runs(), 1, 0
    at = Position(1, 0)
    ends = {at}
    rows_at = {at: 0}
    rows = 0

    def read(at: Position) -> Position:
        run = runs.at(at, MOST_ROWS, MOST_BYTES)
        if run is None:
            later = [place for place in ends if place.segment > at.segment and place.offset == 0]
            return min(later) if later and at == max(p for p in ends if p.segment == at.segment) else at
        after = Position(run.segment, run.end)
        assert (run.segment, run.start) == (at.segment, at.offset)
        assert after in ends
        assert 0 < run.rows == rows_at[after] - rows_at[at] <= MOST_ROWS
        assert run.end - run.start <= MOST_BYTES
        return after

    for write in given:
        if write.turns and end:
            segment, end = segment + 1, 0
            ends.add(Position(segment, 0))
            rows_at[Position(segment, 0)] = rows
        runs.wrote(segment, end, write.size, write.rows)
        end += write.size
        rows += write.rows
        ends.add(Position(segment, end))
        rows_at[Position(segment, end)] = rows
        for _ in range(write.reads):
            at = read(at)
    while (after := read(at)) != at:
        at = after

    assert at == Position(segment, end)
    runs.forget(at)
    assert len(runs) == 0


def test_small_writes_are_one_run_so_that_there_are_few() -> None:
    runs = Runs()
    for number in range(10_000):
        runs.wrote(1, number * 400, 400, 1)

    assert len(runs) == 62  # of nearly 64 KiB each


def test_from_a_place_within_a_run_nothing_is_known() -> None:
    runs = Runs()
    runs.wrote(1, 0, 100, 1)
    runs.wrote(1, 100, 100, 1)

    assert runs.at(Position(1, 100), MOST_ROWS, MOST_BYTES) is None
    assert len(runs) == 0

    runs.wrote(1, 200, 100, 1)
    assert runs.at(Position(1, 100), MOST_ROWS, MOST_BYTES) is None
    assert runs.at(Position(1, 200), MOST_ROWS, MOST_BYTES) is not None


def test_what_one_write_has_too_many_rows_of_is_not_handed_out() -> None:
    runs = Runs()
    runs.wrote(1, 0, 100, MOST_ROWS + 1)

    assert runs.at(Position(1, 0), MOST_ROWS, MOST_BYTES) is None


def test_after_what_is_too_large_the_next_run_is_known() -> None:
    runs = Runs()
    runs.wrote(1, 0, 100, MOST_ROWS + 1)
    runs.wrote(1, 100, 100, 1)
    runs.wrote(2, 0, 100, 1)

    assert runs.next_start(Position(1, 0)) == 0
    assert runs.next_start(Position(1, 50)) == 100
    assert runs.at(Position(1, 100), MOST_ROWS, MOST_BYTES) is not None
    assert runs.next_start(Position(1, 200)) is None
