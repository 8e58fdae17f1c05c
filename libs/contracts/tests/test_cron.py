"""Cron lines: the syntax of crontab(5), each mistake named by its field."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.cron import Cron, CronError

MINUTES = st.frozensets(st.integers(0, 59), min_size=1)
HOURS = st.frozensets(st.integers(0, 23), min_size=1)
DAYS = st.frozensets(st.integers(1, 28), min_size=1)
MONTHS = st.frozensets(st.integers(1, 12), min_size=1)
WEEKDAYS = st.frozensets(st.integers(0, 6), min_size=1)


def listed(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))


@given(MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)
def test_a_list_allows_exactly_its_members(
    minutes: frozenset[int], hours: frozenset[int], days: frozenset[int], months: frozenset[int], week: frozenset[int]
) -> None:
    cron = Cron.parse(" ".join(map(listed, (minutes, hours, days, months, week))))

    assert (cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays) == (minutes, hours, days, months, week)
    assert Cron.parse(cron.text) == cron


@given(st.integers(0, 59), st.integers(0, 59), st.integers(1, 60))
def test_a_range_with_a_step_is_pythons_range(first: int, last: int, step: int) -> None:
    line = f"{first}-{last}/{step} * * * *"
    if first > last:
        with pytest.raises(CronError, match="runs backwards"):
            Cron.parse(line)
        return

    assert Cron.parse(line).minutes == frozenset(range(first, last + 1, step))


@given(st.dates(date(2024, 1, 1), date(2030, 12, 31)), DAYS, WEEKDAYS)
def test_two_restricted_days_allow_either(day: date, days: frozenset[int], week: frozenset[int]) -> None:
    either = Cron.parse(f"0 0 {listed(days)} * {listed(week)}")
    by_month, by_week = Cron.parse(f"0 0 {listed(days)} * *"), Cron.parse(f"0 0 * * {listed(week)}")

    assert either.allows(day) == (by_month.allows(day) or by_week.allows(day))


@given(st.dates(date(2024, 1, 1), date(2030, 12, 31)))
def test_a_star_allows_every_day(day: date) -> None:
    assert Cron.parse("* * * * *").allows(day)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * sun", "0 0 * * 0"),
        ("0 0 * * MON-fri", "0 0 * * 1-5"),
        ("0 0 * JAN,dec *", "0 0 * 1,12 *"),
        ("*/15 * * * *", "0,15,30,45 * * * *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("  0   0 * * *\t", "0 0 * * *"),
    ],
)
def test_two_ways_to_write_one_schedule(line: str, same: str) -> None:
    one, other = Cron.parse(line), Cron.parse(same)

    assert (one.minutes, one.hours, one.days, one.months, one.weekdays) == (
        other.minutes,
        other.hours,
        other.days,
        other.months,
        other.weekdays,
    )


def test_a_weekday_is_due_once_in_any_week() -> None:
    cron = Cron.parse("0 3 * * 1")
    week = [date(2026, 1, 1) + timedelta(days=offset) for offset in range(7)]

    assert [day for day in week if cron.allows(day)] == [date(2026, 1, 5)]


def test_the_leap_day_is_a_day() -> None:
    cron = Cron.parse("0 0 29 2 *")

    assert cron.allows(date(2028, 2, 29))
    assert not cron.allows(date(2028, 2, 28))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "minute: found '60', allowed: 0 to 59"),
        ("* 24 * * *", "hour: found '24', allowed: 0 to 23"),
        ("* * 0 * *", "day-of-month: found '0', allowed: 1 to 31"),
        ("* * * 13 *", "month: found '13', allowed: 1 to 12"),
        ("* * * * 8", "day-of-week: found '8', allowed: 0 to 7"),
        ("* * * feb5 *", "month: found 'feb5'"),
        ("mon * * * *", "minute: found 'mon'"),
        ("*/0 * * * *", "minute: found '0', allowed: 1"),
        ("1,,2 * * * *", "minute: found ''"),
        ("1- * * * *", "minute: found ''"),
        ("-1 * * * *", "minute: found ''"),
        ("*-5 * * * *", "minute: found '*'"),
        ("1/ * * * *", "minute: found ''"),
        ("\u0661 * * * *", "minute: found"),
        ("* * * * fri-mon", "day-of-week: the range fri-mon runs backwards"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 4,6,9,11 *", "no such day"),
    ],
)
def test_a_wrong_line_is_refused_with_its_field(line: str, sentence: str) -> None:
    with pytest.raises(CronError) as caught:
        Cron.parse(line)

    assert sentence in str(caught.value)


@given(st.text("0123456789*,-/ monja", max_size=24))
def test_no_line_does_anything_but_parse_or_say_why(line: str) -> None:
    try:
        cron = Cron.parse(line)
    except CronError as exc:
        assert str(exc)
    else:
        assert all((cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays))
