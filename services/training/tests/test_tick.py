"""The supervisor's turns: runs begin within the bound, end as their processes do, and survive whatever is killed."""

from __future__ import annotations

from typing import Any

import pytest
from modelyard_common.errors import Conflict, Invalid, NotFound, Unavailable
from modelyard_contracts.training_v1 import JobSpec, RunReport
from modelyard_training.domain.runs import State, Trigger
from modelyard_training.domain.supervision import Presence, Sighting
from modelyard_training.usecases.submit import Submission

VERSION = "sha256:" + "e" * 64
SUCCESS = RunReport(seq=9, stage="register", progress=1.0, outcome="succeeded", version=VERSION, mlflow_run_id="ml")


def begun(yard: Any, **changes: Any) -> str:
    """Return the id of a run whose process is at work."""
    yard.models.put("m", **changes)
    run: str = yard.submit(Submission("m", Trigger("manual"))).run.id
    yard.tick()
    return run


def test_a_waiting_run_is_launched_with_everything_that_its_job_needs(yard: Any) -> None:
    run = begun(yard)
    job = yard.launcher.jobs[run, 1]
    document = JobSpec.model_validate(job.document)
    assert (document.run, document.model, document.timeout_s) == (run, "m", 600.0)
    assert (document.training_url, document.registry_url) == ("http://t", "http://r")
    assert document.spec == yard.models.known["m"].written
    yard.tick()
    assert yard.state(run) is State.RUNNING


def test_only_so_many_runs_are_at_work_and_the_oldest_is_next(yard: Any) -> None:
    first = begun(yard)
    second, third = (yard.submit(Submission("m", Trigger("manual"))).run.id for _ in range(2))
    yard.tick()
    assert [run for run, _ in yard.launcher.launches] == [first]
    yard.report(first, SUCCESS)
    yard.tick()
    assert [run for run, _ in yard.launcher.launches] == [first, second]
    assert yard.state(third) is State.PENDING


def test_a_final_report_ends_the_run_with_its_result(yard: Any) -> None:
    run = begun(yard)
    yard.clock.advance(20)
    yard.report(run, SUCCESS.model_copy(update={"metrics": {"accuracy": 0.7}}))
    found = yard.run(run)
    assert (found.state, found.version, found.mlflow_run_id) == (State.SUCCEEDED, VERSION, "ml")
    assert dict(found.metrics) == {"accuracy": 0.7}
    assert [ended.id for ended in yard.ended] == [run]


def test_the_process_of_a_run_that_is_over_is_waited_for_tidied_up_and_forgotten(yard: Any) -> None:
    run = begun(yard)
    yard.report(run, SUCCESS)
    yard.tick()
    assert not yard.run(run).settled
    yard.launcher.end(run)
    yard.tick()
    assert yard.run(run).settled
    assert yard.launcher.tidied == [run]


def test_a_process_that_stays_after_its_last_report_is_killed(yard: Any) -> None:
    run = begun(yard)
    yard.report(run, SUCCESS)
    yard.clock.advance(5)
    yard.tick()
    yard.tick()
    assert yard.launcher.killed == [run]
    assert (yard.state(run), yard.run(run).settled) == (State.SUCCEEDED, True)


def test_a_process_that_ends_without_a_report_fails_its_run_with_the_end_of_its_log(yard: Any) -> None:
    run = begun(yard)
    yard.launcher.logs[run] = "Traceback\nMemoryError: no more"
    yard.launcher.end(run, code=1)
    yard.tick()
    found = yard.run(run)
    assert found.state is State.FAILED
    assert found.reason.startswith("the training process ended with exit code 1 and reported no result")
    assert found.reason.endswith("MemoryError: no more")
    assert len(yard.launcher.launches) == 1


def test_a_lost_process_is_launched_again_once_under_the_same_run(yard: Any) -> None:
    run = begun(yard)
    yard.report(run, RunReport(seq=4, stage="fit", progress=0.5))
    yard.launcher.lose(run, 1)
    yard.tick()
    assert yard.launcher.launches == [(run, 1), (run, 2)]
    assert (yard.run(run).attempts, yard.state(run)) == (2, State.RUNNING)
    yard.report(run, RunReport(seq=0, stage="load", progress=0.1))
    assert yard.run(run).stage == "load"
    yard.launcher.logs[run] = "Killed"
    yard.launcher.lose(run, 2)
    yard.tick()
    assert yard.state(run) is State.FAILED
    assert "the training process ended without a result (killed?)" in yard.run(run).reason
    assert "Killed" in yard.run(run).reason
    assert len(yard.launcher.launches) == 2


def test_another_attempt_has_only_the_time_that_is_left(yard: Any) -> None:
    run = begun(yard)
    yard.clock.advance(200)
    yard.launcher.lose(run, 1)
    yard.tick()
    assert yard.launcher.jobs[run, 2].document["timeout_s"] == 400.0


def test_a_result_that_could_not_be_delivered_is_taken_from_where_the_job_left_it(yard: Any) -> None:
    run = begun(yard)
    yard.report(run, RunReport(seq=12, stage="fit", progress=0.5))
    yard.launcher.results[run, 1] = SUCCESS.model_dump(mode="json")
    yard.launcher.end(run, code=1)
    yard.tick()
    assert (yard.state(run), yard.run(run).version) == (State.SUCCEEDED, VERSION)


def test_a_result_that_cannot_be_read_is_no_result(yard: Any) -> None:
    run = begun(yard)
    yard.launcher.results[run, 1] = {"hello": "world"}
    yard.launcher.end(run, code=0)
    yard.tick()
    assert yard.state(run) is State.FAILED


def test_a_cancelled_run_ends_when_its_process_does(yard: Any) -> None:
    run = begun(yard)
    assert yard.cancel(run).state is State.RUNNING
    yard.tick()
    assert yard.launcher.terminated == [run]
    yard.tick()
    found = yard.run(run)
    assert (found.state, found.reason) == (State.CANCELLED, "cancelled by a person")
    assert len(yard.launcher.launches) == 1


def test_a_process_that_does_not_listen_is_killed_after_its_grace(yard: Any) -> None:
    run = begun(yard)
    yard.launcher.obedient = False
    yard.cancel(run)
    yard.tick()
    assert yard.launcher.killed == []
    yard.clock.advance(5)
    yard.tick()
    yard.tick()
    assert yard.launcher.killed == [run]
    assert yard.state(run) is State.CANCELLED


def test_a_waiting_run_is_cancelled_without_ever_being_launched(yard: Any) -> None:
    yard.models.put("m")
    run = yard.submit(Submission("m", Trigger("manual"))).run.id
    assert yard.cancel(run).state is State.CANCELLED
    yard.tick()
    assert yard.launcher.launches == []
    assert [ended.id for ended in yard.ended] == [run]


def test_cancelling_again_changes_nothing_and_an_unknown_run_is_refused(yard: Any) -> None:
    yard.models.put("m")
    run = yard.submit(Submission("m", Trigger("manual"))).run.id
    assert yard.cancel(run) == yard.cancel(run, "another reason")
    with pytest.raises(NotFound):
        yard.cancel("run-9999")


def test_a_run_times_out_by_wall_time_since_its_start_also_across_a_restart(yard: Any) -> None:
    run = begun(yard)
    yard.clock.advance(599)
    yard.tick()
    assert yard.state(run) is State.RUNNING
    again = yard.restarted()
    again.clock.advance(1)
    again.tick()
    again.tick()
    again.tick()
    found = yard.run(run)
    assert (found.state, found.reason) == (State.TIMED_OUT, "took longer than its timeout of 600 s")


def test_a_service_killed_before_the_launch_launches_after_its_restart_and_once(yard: Any) -> None:
    yard.models.put("m")
    run = yard.submit(Submission("m", Trigger("manual"))).run.id
    yard.launcher.refuse = KeyboardInterrupt()  # stands for SIGKILL: nothing after the commit happens
    with pytest.raises(KeyboardInterrupt):
        yard.tick()
    assert yard.state(run) is State.STARTING
    yard.launcher.refuse = None
    again = yard.restarted()
    again.tick()
    again.tick()
    assert yard.launcher.launches == [(run, 1)]
    assert yard.state(run) is State.RUNNING


def test_a_launcher_that_is_away_is_asked_again(yard: Any) -> None:
    yard.launcher.refuse = Unavailable("no more processes")
    run = begun(yard)
    assert yard.state(run) is State.STARTING
    yard.launcher.refuse = None
    yard.tick()
    assert yard.launcher.launches == [(run, 1)]


def test_a_launcher_that_stays_away_ends_the_run_when_its_time_is_over(yard: Any) -> None:
    yard.launcher.refuse = Unavailable("no more processes")
    run = begun(yard)
    assert yard.run(run).reason == "cannot be launched yet: no more processes"
    yard.clock.advance(601)
    for _ in range(3):
        yard.tick()
    found = yard.run(run)
    assert found.state is State.TIMED_OUT
    assert found.reason.endswith("passed before it could be launched: cannot be launched yet: no more processes")
    assert yard.launcher.launches == []


def test_a_run_whose_job_was_deleted_by_hand_is_named_and_never_started_again(yard: Any) -> None:
    run = begun(yard)
    yard.tick()
    del yard.launcher.sightings[run, 1]
    for _ in range(3):
        yard.tick()
    found = yard.run(run)
    assert (found.state, found.settled) == (State.FAILED, True)
    assert "somebody deleted it" in found.reason
    assert yard.launcher.launches == [(run, 1)]


def test_a_job_that_is_deleted_before_anybody_looked_at_it_is_not_launched_again(yard: Any) -> None:
    run = begun(yard)
    del yard.launcher.sightings[run, 1]
    for _ in range(3):
        yard.tick()

    assert yard.state(run) is State.FAILED
    assert "somebody deleted it" in yard.run(run).reason
    assert yard.launcher.launches == [(run, 1)]


def test_what_a_run_waits_for_is_shown_until_it_starts(yard: Any) -> None:
    run = begun(yard)
    yard.launcher.sightings[run, 1] = Sighting(Presence.ALIVE, detail="cannot be scheduled: no memory")
    yard.tick()
    assert (yard.state(run), yard.run(run).reason) == (State.RUNNING, "cannot be scheduled: no memory")
    yard.launcher.sightings[run, 1] = Sighting(Presence.ALIVE)
    yard.tick()
    assert yard.run(run).reason == ""


def test_a_report_of_a_job_that_is_being_stopped_does_not_hide_why(yard: Any) -> None:
    run = begun(yard)
    yard.cancel(run, "no more money")
    yard.report(run, RunReport(seq=1, stage="load", progress=0.1))
    assert yard.run(run).reason == "no more money"


def test_a_run_that_cannot_start_is_stopped_and_fails_with_the_reason(yard: Any) -> None:
    run = begun(yard)
    yard.launcher.sightings[run, 1] = Sighting(Presence.STUCK, reason="the image x cannot be pulled")
    for _ in range(3):
        yard.tick()
    found = yard.run(run)
    assert (found.state, found.reason) == (State.FAILED, "the image x cannot be pulled")
    assert yard.launcher.terminated == [run]


def test_a_job_that_can_never_be_launched_fails_its_run_at_once(yard: Any) -> None:
    yard.launcher.refuse = Invalid("cpu: 1000 is more than this cluster has")
    run = begun(yard)
    assert yard.run(run).reason == "could not be launched: cpu: 1000 is more than this cluster has"


def test_one_run_that_cannot_be_looked_at_does_not_keep_the_others_waiting(yard: Any) -> None:
    yard.tick = type(yard.tick)(yard.transactions, yard.observe, yard.clock, 2, yard.ended.append)
    first = begun(yard)
    second = yard.submit(Submission("m", Trigger("manual"))).run.id
    sight = yard.launcher.sight

    def broken(run: str, attempt: int) -> Any:
        if run == first:
            raise OSError("disk")
        return sight(run, attempt)

    yard.launcher.sight = broken
    yard.tick()
    yard.tick()
    assert yard.state(second) is State.RUNNING


def test_a_dataset_that_nobody_uploaded_fails_the_run_before_it_begins(yard: Any) -> None:
    missing = "sha256:" + "0" * 64
    run = begun(yard, data={"source": {"uri": f"dataset://{missing}"}, "target": "up"})
    found = yard.run(run)
    assert (found.state, found.attempts) == (State.FAILED, 0)
    assert found.reason == f"spec.data.source.uri: there is no dataset {missing}; upload it, then train again"
    assert [ended.id for ended in yard.ended] == [run]


def test_a_success_without_a_version_is_refused(yard: Any) -> None:
    run = begun(yard)
    with pytest.raises(Invalid) as refusal:
        yard.report(run, RunReport(seq=1, stage="register", progress=1.0, outcome="succeeded"))
    assert refusal.value.errors[0].path == "version"


def test_the_last_report_may_come_again_and_nothing_else_may(yard: Any) -> None:
    run = begun(yard)
    first = yard.report(run, SUCCESS)
    assert yard.report(run, SUCCESS) == first
    with pytest.raises(Conflict):
        yard.report(run, SUCCESS.model_copy(update={"seq": 10}))
    with pytest.raises(Conflict):
        yard.report(run, SUCCESS.model_copy(update={"version": "sha256:" + "f" * 64}))
    assert len(yard.ended) == 1


def test_a_report_about_an_unknown_run_is_refused(yard: Any) -> None:
    with pytest.raises(NotFound):
        yard.report("run-9999", SUCCESS)
