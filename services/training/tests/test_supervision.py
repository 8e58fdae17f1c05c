"""What is done about a run, for every way in which its process can be found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from modelyard_training.domain.runs import Run, State, Trigger, ask_to_stop, begin, finish, mark_running, settle
from modelyard_training.domain.supervision import Do, Policy, Presence, Sighting, next_step

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = Policy(grace_s=10.0, max_attempts=2)
ABSENT, ALIVE = Sighting(Presence.ABSENT), Sighting(Presence.ALIVE)
ENDED, KILLED = Sighting(Presence.ENDED, 3), Sighting(Presence.KILLED, -9, "SIGKILL")
WAITING = Sighting(Presence.ALIVE, detail="no room")
STUCK, OVERDUE = Sighting(Presence.STUCK, reason="no such image"), Sighting(Presence.OVERDUE)


def begun(attempts: int = 1) -> Run:
    run = Run(id="r", model="m", trigger=Trigger("manual"), spec={}, training_digest="d", timeout_s=60.0, created=NOW)
    for _ in range(attempts):
        run = begin(run, NOW)
    return run


def running() -> Run:
    return mark_running(begun())


def stopping() -> Run:
    return ask_to_stop(running(), State.CANCELLED, NOW, "no more")


def over() -> Run:
    return finish(running(), State.SUCCEEDED, NOW, "")


@pytest.mark.parametrize(
    ("run", "seen", "after_s", "expected"),
    [
        pytest.param(begun(), ABSENT, 0, Do.LAUNCH, id="begun, and never launched"),
        pytest.param(begun(), ALIVE, 0, Do.NOTE_RUNNING, id="launched"),
        pytest.param(running(), ALIVE, 59, Do.NOTHING, id="at work"),
        pytest.param(running(), ALIVE, 60, Do.STOP, id="too long at work"),
        pytest.param(running(), ABSENT, 1, Do.FINISH, id="deleted by hand"),
        pytest.param(begun(), ABSENT, 60, Do.STOP, id="not launched in time"),
        pytest.param(running(), WAITING, 1, Do.NOTE_RUNNING, id="waits"),
        pytest.param(mark_running(begun(), "no room"), WAITING, 1, Do.NOTHING, id="still waits"),
        pytest.param(mark_running(begun(), "no room"), ALIVE, 1, Do.NOTE_RUNNING, id="waits no more"),
        pytest.param(begun(), STUCK, 1, Do.STOP, id="cannot start"),
        pytest.param(stopping(), STUCK, 1, Do.TERMINATE, id="asked to stop what cannot start"),
        pytest.param(over(), STUCK, 10, Do.KILL, id="over, and might still start"),
        pytest.param(running(), OVERDUE, 61, Do.FINISH, id="ended by its machine at its deadline"),
        pytest.param(running(), KILLED, 1, Do.LAUNCH_AGAIN, id="lost once"),
        pytest.param(begun(2), KILLED, 1, Do.FINISH, id="lost twice"),
        pytest.param(running(), KILLED, 61, Do.FINISH, id="lost when its time was over"),
        pytest.param(running(), ENDED, 1, Do.FINISH, id="ended without a report"),
        pytest.param(stopping(), ALIVE, 1, Do.TERMINATE, id="asked to stop"),
        pytest.param(stopping(), ALIVE, 10, Do.KILL, id="did not listen"),
        pytest.param(stopping(), KILLED, 1, Do.FINISH, id="stopped"),
        pytest.param(stopping(), ENDED, 1, Do.FINISH, id="stopped by itself"),
        pytest.param(stopping(), ABSENT, 1, Do.KILL, id="stopped before it was launched"),
        pytest.param(over(), ALIVE, 1, Do.NOTHING, id="over, tidying up"),
        pytest.param(over(), ALIVE, 10, Do.KILL, id="over, and does not leave"),
        pytest.param(over(), ENDED, 1, Do.SETTLE, id="over and gone"),
        pytest.param(settle(over()), ALIVE, 99, Do.NOTHING, id="settled"),
    ],
)
def test_next_step(run: Run, seen: Sighting, after_s: float, expected: Do) -> None:
    step = next_step(run, seen, now=NOW + timedelta(seconds=after_s), policy=POLICY)
    assert step.do is expected


def test_a_stopped_run_ends_in_the_state_that_was_asked_for_with_its_reason() -> None:
    step = next_step(stopping(), KILLED, now=NOW, policy=POLICY)
    assert (step.state, step.reason) == (State.CANCELLED, "no more")


def test_a_lost_process_is_told_from_one_that_ended_by_itself() -> None:
    lost = next_step(begun(2), KILLED, now=NOW, policy=POLICY)
    ended = next_step(begun(), ENDED, now=NOW, policy=POLICY)
    assert lost.reason == "the training process ended without a result (killed?) (SIGKILL) in each of 2 attempts"
    assert ended.reason == "the training process ended with exit code 3 and reported no result"


def test_what_a_machine_did_to_a_job_names_the_state_and_the_reason() -> None:
    out_of_memory = Sighting(Presence.ENDED, 137, "OOMKilled", reason="ran out of memory")
    assert next_step(running(), out_of_memory, now=NOW, policy=POLICY).reason == "ran out of memory"
    stuck = next_step(begun(), STUCK, now=NOW, policy=POLICY)
    assert (stuck.state, stuck.reason) == (State.FAILED, "no such image")
    overdue = next_step(running(), OVERDUE, now=NOW, policy=POLICY)
    assert (overdue.state, overdue.reason) == (State.TIMED_OUT, "took longer than its timeout of 60 s")
