"""How often a process may end: pauses grow, a limit ends in quarantine, and quarantine ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from modelyard_inference_runtime.crashes import CrashRecord

NEW = CrashRecord(limit=3, window_s=100.0)


def test_nothing_is_held_against_a_new_version() -> None:
    assert not NEW.is_quarantined(0.0)
    assert NEW.pause_s(0.0) == 0.0
    assert NEW.sentence(0.0) == ""


def test_pauses_double_and_the_limit_is_a_quarantine_for_as_long_as_the_window() -> None:
    first, second = NEW.ended(10.0, "of SIGSEGV"), NEW.ended(10.0, "of SIGSEGV").ended(11.0, "of SIGSEGV")
    third = second.ended(12.0, "it hung")

    assert (first.pause_s(10.0), second.pause_s(11.0), third.pause_s(12.0)) == (0.1, 0.2, 100.0)
    assert [one.is_quarantined(12.0) for one in (first, second, third)] == [False, False, True]
    assert third.sentence(12.0) == (
        "its process ended 3 times within 100 s, the last time because it hung; it is not started again for 100 s"
    )
    assert third.is_quarantined(111.9)
    assert not third.is_quarantined(112.0)


def test_ends_that_are_far_apart_are_not_added_up() -> None:
    record = NEW
    for number in range(10):
        record = record.ended(number * 101.0, "of SIGKILL")
        assert not record.is_quarantined(number * 101.0)
        assert record.pause_s(number * 101.0) == 0.1


@given(ends=st.lists(st.floats(0, 1000), max_size=30).map(sorted), limit=st.integers(1, 6), window_s=st.floats(1, 500))
def test_a_record_stays_small_and_its_pause_is_bounded(ends: list[float], limit: int, window_s: float) -> None:
    record = CrashRecord(limit, window_s)
    for end in ends:
        record = record.ended(end, "x")

        assert len(record.ends) <= limit
        assert 0 < record.pause_s(end) <= max(10.0, window_s) + 1e-6
