"""Cron triggers: one run for a due time, whoever looks at the clock and whatever is away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from modelyard_training.domain.runs import State

HOUR_S = 3600.0
CHAMPION = "sha256:" + "c" * 64


@pytest.fixture
def hourly(yard: Any) -> Any:
    """Give a yard at 12:00 with a champion that is trained at every full hour; its spec run has ended."""
    when = [{"cron": "0 * * * *"}]
    yard.models.put("m", champion=CHAMPION, train={"recipe": {"estimator": "decision_tree"}, "when": when})
    yard.specs()
    yard.cancel(yard.runs()[0].id)
    return yard


def cron_runs(yard: Any) -> list[Any]:
    return [run for run in yard.runs() if run.trigger.kind == "cron"]


def schedule(yard: Any) -> Any:
    with yard.transactions.read() as reader:
        [found] = reader.schedules("m")
    return found


def test_nothing_happens_before_the_due_time(hourly: Any) -> None:
    hourly.clock.advance(HOUR_S - 1)
    hourly.schedules()
    assert cron_runs(hourly) == []


def test_a_due_time_makes_one_run_and_is_recorded(hourly: Any) -> None:
    hourly.labels.seq = 8
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    hourly.schedules()
    [run] = cron_runs(hourly)
    assert (run.until_label_seq, run.trigger.reason) == (8, "cron 0 * * * *, due 2026-03-02 13:00 UTC")
    found = schedule(hourly)
    assert (found.last_run, found.note) == (run.id, "started")
    assert (found.last_due, found.next_due) == (
        datetime(2026, 3, 2, 13, tzinfo=UTC),
        datetime(2026, 3, 2, 14, tzinfo=UTC),
    )


def test_two_replicas_make_one_run(hourly: Any) -> None:
    hourly.clock.advance(HOUR_S)
    due = schedule(hourly)
    hourly.restarted().schedules._fire(due)
    hourly.schedules._fire(due)
    assert len(cron_runs(hourly)) == 1


def test_a_service_killed_between_the_run_and_the_record_makes_no_second_run(hourly: Any) -> None:
    hourly.clock.advance(HOUR_S)
    hourly.schedules._run(schedule(hourly))  # killed here
    hourly.restarted().schedules()
    [run] = cron_runs(hourly)
    assert schedule(hourly).last_run == run.id


def test_due_times_that_passed_while_nobody_looked_make_one_run(hourly: Any) -> None:
    hourly.clock.advance(5.5 * HOUR_S)
    hourly.schedules()
    assert len(cron_runs(hourly)) == 1
    assert schedule(hourly).next_due == datetime(2026, 3, 2, 18, tzinfo=UTC)


def test_a_trigger_whose_last_run_still_goes_is_skipped(hourly: Any) -> None:
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    [run] = cron_runs(hourly)
    assert schedule(hourly).note == f"skipped: run {run.id} is still going"
    hourly.cancel(run.id)
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    assert [found.state for found in cron_runs(hourly)] == [State.CANCELLED, State.PENDING]


def test_a_due_time_waits_while_drift_is_away(hourly: Any) -> None:
    hourly.labels.away = True
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    assert schedule(hourly).note == "waiting: drift cannot be reached"
    hourly.labels.away = False
    hourly.schedules()
    assert cron_runs(hourly) == []
    hourly.clock.advance(15)
    hourly.schedules()
    assert len(cron_runs(hourly)) == 1


def test_a_paused_model_is_skipped(hourly: Any) -> None:
    when = [{"cron": "0 * * * *"}]
    hourly.models.put("m", paused=True, train={"recipe": {"estimator": "decision_tree"}, "when": when})
    hourly.clock.advance(HOUR_S)
    hourly.schedules()
    assert schedule(hourly).note.startswith("skipped: model 'm' is paused")
    assert cron_runs(hourly) == []
