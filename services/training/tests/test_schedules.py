"""When cron lines are due: examples, and the law that a scan over all minutes finds the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_contracts.cron import Cron
from modelyard_training.domain.schedules import Schedule, advance, next_after


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("0 3 * * 1", "2026-03-02T02:59:59", "2026-03-02T03:00"),
        ("0 3 * * 1", "2026-03-02T03:00", "2026-03-09T03:00"),
        ("*/15 * * * *", "2026-12-31T23:46", "2027-01-01T00:00"),
        ("30 6 1 * *", "2026-01-31T00:00", "2026-02-01T06:30"),
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),
        ("0 0 13 * fri", "2026-03-02T00:00", "2026-03-06T00:00"),
        ("0 12 * jan-mar sun", "2026-03-30T00:00", "2027-01-03T12:00"),
        ("5/20 * * * 7", "2026-03-01T00:30", "2026-03-01T00:45"),
    ],
)
def test_next_due_time(line: str, after: str, expected: str) -> None:
    assert next_after(Cron.parse(line), at(after)) == at(expected)


def test_due_times_are_in_utc_whatever_offset_is_asked_with() -> None:
    local = at("2026-03-02T02:00").astimezone(timezone(timedelta(hours=11)))
    due = next_after(Cron.parse("0 3 * * *"), local)
    assert (due, due.tzinfo) == (at("2026-03-02T03:00"), UTC)


FIELDS = st.tuples(
    st.sampled_from(["*", "0", "*/7", "3-9", "59", "1,31"]),
    st.sampled_from(["*", "0", "*/5", "22-23", "7"]),
    st.sampled_from(["*", "1", "31", "10-12", "*/2"]),
    st.sampled_from(["*", "3", "2-4", "mar,apr"]),
    st.sampled_from(["*", "0", "7", "mon-fri", "3"]),
)


@settings(max_examples=60)
@given(FIELDS, st.integers(0, 20 * 24 * 60))
def test_a_scan_over_all_minutes_finds_the_same(parts: tuple[str, ...], offset_minutes: int) -> None:
    cron = Cron.parse(" ".join(parts))
    start = at("2026-02-25T00:00") + timedelta(minutes=offset_minutes)
    due = next_after(cron, start)
    moment = start
    for _ in range(60 * 24 * 40):
        moment += timedelta(minutes=1)
        if moment.minute in cron.minutes and moment.hour in cron.hours and cron.allows(moment.date()):
            assert due == moment
            return
    assert due > moment


def test_missed_due_times_are_made_up_for_by_one_run() -> None:
    schedule = Schedule("m", "0 * * * *", at("2026-03-02T03:00"))
    after = advance(schedule, at("2026-03-02T09:20"), run="run-1", note="started")
    assert (after.next_due, after.last_due, after.last_run) == (
        at("2026-03-02T10:00"),
        at("2026-03-02T03:00"),
        "run-1",
    )


def test_a_trigger_that_could_not_be_acted_on_waits_for_its_retry() -> None:
    schedule = Schedule("m", "0 * * * *", at("2026-03-02T03:00"), retry_at=at("2026-03-02T03:01"))
    assert not schedule.due(at("2026-03-02T03:00:30"))
    assert schedule.due(at("2026-03-02T03:01"))
