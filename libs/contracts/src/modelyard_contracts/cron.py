"""Cron lines of five fields, in UTC: read and checked here, so that a wrong one is refused with the manifest.

The syntax is crontab(5): ``*``, numbers, names (``mon``, ``jan``), ranges, steps and lists; 7 is Sunday too. When
day of month and day of week are both restricted, a day matches that satisfies either. Nicknames (``@daily``) and
seconds are refused. A line that can never be due (30 February) is refused as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Self

__all__ = ["Cron", "CronError"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


class CronError(ValueError):
    """A cron line is not one of five valid fields."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    names_from: int = 0


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, _MONTHS, 1),
    _Field("day-of-week", 0, 7, _DAYS, 0),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed line: the values that each field allows."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    any_day: bool
    """Day of month starts with ``*``: the day of week alone decides."""
    any_weekday: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the line that text is; raise CronError naming the field that is wrong."""
        parts = text.split()
        if len(parts) != 5:
            raise CronError("a cron line has five fields: minute hour day-of-month month day-of-week")
        minutes, hours, days, months, weekdays = (
            _values(field, part.lower()) for field, part in zip(_FIELDS, parts, strict=True)
        )
        any_day, any_weekday = parts[2].startswith("*"), parts[4].startswith("*")
        if any_weekday and not any(day <= _LONGEST[month] for day in days for month in months):
            raise CronError("day-of-month: no such day exists in the months given")
        return cls(
            text=" ".join(parts),
            minutes=minutes,
            hours=hours,
            days=days,
            months=months,
            weekdays=frozenset(day % 7 for day in weekdays),
            any_day=any_day,
            any_weekday=any_weekday,
        )

    def allows(self, day: date) -> bool:
        """Return whether the line is due on this day at all."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_month and by_week
        return by_month or by_week


def _values(field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split(","):
        body, slash, step_text = item.partition("/")
        step = _number(field, step_text, 1, field.high + 1) if slash else 1
        if body == "*":
            low, high = field.low, field.high
        else:
            first, dash, last = body.partition("-")
            low = _value(field, first)
            # crontab reads "5/15" as "from 5 on, every 15".
            high = _value(field, last) if dash else (field.high if slash else low)
        if high < low:
            raise CronError(f"{field.name}: the range {body} runs backwards")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _value(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.names_from
    return _number(field, text, field.low, field.high)


def _number(field: _Field, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise CronError(f"{field.name}: found {text[:20]!r}, allowed: {low} to {high}")
    return int(text)
