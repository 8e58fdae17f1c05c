"""The life of a run: legal ways only, reports once, nothing leaves a final state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.errors import Conflict
from modelyard_training.domain.runs import (
    ACTIVE,
    FINAL,
    LEGAL,
    Report,
    Run,
    State,
    Trigger,
    absorb,
    ask_to_stop,
    begin,
    finish,
    mark_running,
    settle,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def fresh_run() -> Run:
    return Run(id="r", model="m", trigger=Trigger("manual"), spec={}, training_digest="d", timeout_s=60.0, created=NOW)


def report(seq: int, outcome: str = "running", **changes: object) -> Report:
    values = {"seq": seq, "digest": f"{seq}{outcome}{changes}", "stage": "fit", "progress": 0.5, "outcome": outcome}
    return Report(**(values | changes))  # type: ignore[arg-type]


def test_every_state_is_pending_active_or_final() -> None:
    assert {State.PENDING} | ACTIVE | FINAL == set(State)
    assert all(not LEGAL[state] for state in FINAL)


def test_a_run_begins_runs_and_succeeds() -> None:
    run = mark_running(begin(fresh_run(), NOW))
    run = absorb(run, report(0), NOW)
    run = absorb(run, report(1, "succeeded", version="v", metrics={"accuracy": 0.7}), NOW + timedelta(seconds=9))
    assert (run.state, run.version, run.progress, dict(run.metrics)) == (State.SUCCEEDED, "v", 1.0, {"accuracy": 0.7})
    assert run.ended == NOW + timedelta(seconds=9)
    assert not run.settled


def test_an_older_report_changes_nothing() -> None:
    run = absorb(begin(fresh_run(), NOW), report(5, stage="evaluate"), NOW)
    assert absorb(run, report(4, stage="fit"), NOW) == run
    assert absorb(run, report(5, stage="load"), NOW) == run


def test_the_last_report_again_changes_nothing_and_another_is_refused() -> None:
    last = report(3, "succeeded", version="v")
    run = absorb(begin(fresh_run(), NOW), last, NOW)
    assert absorb(run, last, NOW + timedelta(hours=1)) == run
    assert absorb(run, report(1), NOW) == run
    with pytest.raises(Conflict, match="takes no more reports"):
        absorb(run, report(3, "failed"), NOW)
    with pytest.raises(Conflict, match="takes no more reports"):
        absorb(run, report(4), NOW)


def test_a_run_that_has_not_begun_takes_no_report() -> None:
    with pytest.raises(Conflict, match="has not begun"):
        absorb(fresh_run(), report(0), NOW)


def test_a_waiting_run_is_cancelled_at_once() -> None:
    run = ask_to_stop(fresh_run(), State.CANCELLED, NOW, "no more")
    assert (run.state, run.settled, run.reason) == (State.CANCELLED, True, "no more")


def test_a_run_at_work_is_cancelled_when_its_process_is_gone() -> None:
    run = ask_to_stop(begin(fresh_run(), NOW), State.CANCELLED, NOW, "no more")
    assert (run.state, run.stopping) == (State.STARTING, State.CANCELLED)
    assert ask_to_stop(run, State.TIMED_OUT, NOW, "late") == run


def test_a_result_is_taken_while_the_run_is_being_stopped() -> None:
    run = ask_to_stop(begin(fresh_run(), NOW), State.CANCELLED, NOW, "no more")
    assert absorb(run, report(1, "succeeded", version="v"), NOW).state is State.SUCCEEDED


def test_a_job_that_reports_its_own_interruption_is_cancelled_and_not_failed() -> None:
    run = ask_to_stop(begin(fresh_run(), NOW), State.CANCELLED, NOW, "no more")
    after = absorb(run, report(1, "failed", reason="interrupted by SIGTERM"), NOW)
    assert (after.state, after.reason) == (State.CANCELLED, "no more")


def test_another_attempt_counts_its_reports_from_the_start_and_keeps_the_start_time() -> None:
    run = absorb(begin(fresh_run(), NOW), report(7), NOW)
    again = begin(run, NOW + timedelta(minutes=1))
    assert (again.attempts, again.started, again.report_seq, again.progress) == (2, NOW, -1, 0.0)
    assert absorb(again, report(0, stage="load"), NOW).stage == "load"


def test_a_run_that_is_not_over_cannot_be_settled() -> None:
    with pytest.raises(ValueError, match="pending"):
        settle(fresh_run())


OPERATIONS: list[Callable[[Run], Run]] = [
    lambda run: begin(run, NOW),
    mark_running,
    lambda run: ask_to_stop(run, State.CANCELLED, NOW, "c"),
    lambda run: ask_to_stop(run, State.TIMED_OUT, NOW, "t"),
    lambda run: finish(run, State.FAILED, NOW, "f"),
    lambda run: absorb(run, report(run.report_seq + 1), NOW),
    lambda run: absorb(run, report(run.report_seq + 1, "failed"), NOW),
    lambda run: absorb(run, report(run.report_seq + 1, "succeeded", version="v"), NOW),
    settle,
]


@given(st.lists(st.sampled_from(range(len(OPERATIONS))), max_size=30))
def test_whatever_happens_only_legal_ways_are_taken(choices: list[int]) -> None:
    run = fresh_run()
    for choice in choices:
        try:
            after = OPERATIONS[choice](run)
        except (Conflict, ValueError):
            continue
        assert after.state is run.state or after.state in LEGAL[run.state] or run.state is State.STARTING
        assert after.attempts >= run.attempts
        assert not run.over or (after.state, after.version, after.ended) == (run.state, run.version, run.ended)
        assert after.over == (after.ended is not None)
        run = after
