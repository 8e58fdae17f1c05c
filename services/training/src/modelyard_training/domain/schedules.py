"""When a cron line is due next, in UTC, and what a scheduler that was away does about the times it missed.

Pure functions of the line and a time. Missed times are made up for by one run, not by many. Reading and refusing
lines is the contract's part (``modelyard_contracts.cron``); this module computes with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from modelyard_contracts.cron import Cron

__all__ = ["Schedule", "advance", "next_after"]

# Between two 29ths of February around a year like 2100 lie eight years; no line that the contract accepts is rarer,
# save one that also wants a day of the week, and cron ORs those.
_HORIZON_DAYS = 366 * 9


@dataclass(frozen=True, slots=True)
class Schedule:
    """One cron trigger of one model."""

    model: str
    cron: str
    next_due: datetime
    last_due: datetime | None = None
    """The due time that was acted on last."""
    last_run: str | None = None
    note: str = ""
    """What became of the last due time, in words."""
    retry_at: datetime | None = None
    """Not to be tried before, after it could not be acted on."""

    def due(self, now: datetime) -> bool:
        """Return whether there is something to do now."""
        return now >= self.next_due and (self.retry_at is None or now >= self.retry_at)


def next_after(cron: Cron, moment: datetime) -> datetime:
    """Return the first due minute strictly after moment.

    Args:
        cron: the parsed line.
        moment: with an offset.

    Returns:
        A whole minute, in UTC.

    Raises:
        ValueError: the line is never due; ``Cron.parse`` refuses such lines.
    """
    start = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    day, earliest = start.date(), (start.hour, start.minute)
    for _ in range(_HORIZON_DAYS):
        if cron.allows(day):
            for hour in sorted(cron.hours):
                for minute in sorted(cron.minutes):
                    if (hour, minute) >= earliest:
                        return datetime.combine(day, time(hour, minute), UTC)
        day, earliest = day + timedelta(days=1), (0, 0)
    raise ValueError(f"the cron line {cron.text!r} is never due")


def advance(schedule: Schedule, now: datetime, *, run: str | None, note: str) -> Schedule:
    """Return the schedule after its due time was acted on at ``now``: due times missed meanwhile are skipped."""
    return Schedule(
        model=schedule.model,
        cron=schedule.cron,
        next_due=next_after(Cron.parse(schedule.cron), max(now, schedule.next_due)),
        last_due=schedule.next_due,
        last_run=run or schedule.last_run,
        note=note,
    )
