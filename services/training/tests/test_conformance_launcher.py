"""What every launcher must do, as one suite. A new launcher gets a kit here and passes the same tests.

The fake that the use cases are tested with is in the suite too: a fake that behaves otherwise would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launcher_kits import FakeClusterKit, Kit, LocalKit, MemoryKit, RealClusterKit
from modelyard_common.testing import running
from modelyard_common.testing.required import kubeconfig
from modelyard_training.domain.ports import Job
from modelyard_training.domain.supervision import Presence

SLEEP = {"kind": "sleep"}
RUN = "run-1"


@pytest.fixture(params=["memory", "local", "kubernetes", pytest.param("cluster", marks=pytest.mark.cluster)])
def kit(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_launcher: Callable[[], Any],
    end_jobs: Callable[[Path], None],
) -> Iterator[Kit]:
    with ExitStack() as stack:
        made: Any
        match request.param:
            case "memory":
                made = MemoryKit(make_launcher())
            case "local":
                made = LocalKit(tmp_path / "runs", end_jobs)
            case "kubernetes":
                made = FakeClusterKit(tmp_path, lambda server: stack.enter_context(running(server.app)))
            case _:
                made = RealClusterKit(kubeconfig(), tmp_path)
        stack.callback(made.close)
        yield made


def job(behaviour: dict[str, Any], *, run: str = RUN, attempt: int = 1) -> Job:
    return Job(run, attempt, {"run": run, "spec": {"behaviour": behaviour}, "work_dir": ""})


def test_what_was_never_launched_is_absent(kit: Kit) -> None:
    assert kit.make().sight(RUN, 1).presence is Presence.ABSENT


def test_a_launched_attempt_is_alive_and_found_again_after_a_restart(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    assert launcher.sight(RUN, 1).presence is Presence.ALIVE
    kit.settle(launcher, RUN, Presence.ALIVE)
    assert kit.make().sight(RUN, 1).presence is Presence.ALIVE


def test_an_attempt_starts_once_however_often_it_is_launched(kit: Kit) -> None:
    launcher = kit.make()
    for _ in range(3):
        launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.make().launch(job(SLEEP))
    assert kit.starts(RUN) == 1


def test_an_attempt_starts_once_when_several_services_launch_it_at_the_same_time(kit: Kit) -> None:
    """None of them knows of the others, as when a service is killed between the launch and its record."""
    launchers = [kit.make() for _ in range(4)]
    threads = [threading.Thread(target=launcher.launch, args=(job({"kind": "end"}),)) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for launcher in launchers:
        kit.settle(launcher, RUN, Presence.ENDED)
        launcher.launch(job({"kind": "end"}))
    assert kit.starts(RUN) == 1


@pytest.mark.parametrize("code", [0, 3])
def test_an_attempt_that_ended_tells_its_exit_code_and_never_starts_again(kit: Kit, code: int) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end", "code": code}))
    assert kit.settle(launcher, RUN, Presence.ENDED).exit_code == code
    again = kit.make()
    again.launch(job({"kind": "end"}))
    assert again.sight(RUN, 1).exit_code == code
    assert kit.starts(RUN) == 1


def test_a_lost_attempt_is_told_from_one_that_ended_and_another_may_follow(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.crash(RUN)
    kit.settle(launcher, RUN, Presence.KILLED)
    assert kit.make().sight(RUN, 1).presence is Presence.KILLED
    launcher.launch(job({"kind": "end"}, attempt=2))
    kit.settle(launcher, RUN, Presence.ENDED, 2)
    assert kit.starts(RUN) == 2


def test_terminating_ends_a_job_that_listens_also_after_a_restart(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    again = kit.make()
    again.terminate(RUN, 1)
    again.terminate(RUN, 1)
    kit.settle(again, RUN, Presence.KILLED)


def test_a_job_that_does_not_listen_lives_until_it_is_killed(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "stubborn"}))
    kit.settle(launcher, RUN, Presence.ALIVE)
    launcher.terminate(RUN, 1)
    assert launcher.sight(RUN, 1).presence is Presence.ALIVE
    launcher.kill(RUN, 1)
    kit.settle(launcher, RUN, Presence.KILLED)


def test_an_attempt_that_is_killed_before_its_launch_never_starts(kit: Kit) -> None:
    launcher = kit.make()
    launcher.kill(RUN, 1)
    launcher.launch(job({"kind": "end"}))
    kit.make().launch(job({"kind": "end"}))
    assert launcher.sight(RUN, 1).presence is Presence.KILLED
    assert kit.starts(RUN) == 0


def test_stopping_what_is_gone_changes_nothing(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end", "code": 3}))
    kit.settle(launcher, RUN, Presence.ENDED)
    launcher.tidy(RUN)
    assert launcher.sight(RUN, 1).exit_code == 3


def test_a_report_that_a_job_left_behind_is_found(kit: Kit) -> None:
    launcher = kit.make()
    assert launcher.result(RUN, 1) is None
    launcher.launch(job({"kind": "result", "report": {"seq": 3}}))
    kit.settle(launcher, RUN, Presence.ENDED)
    assert kit.make().result(RUN, 1) == {"seq": 3}


def test_the_log_is_read_in_pieces_over_all_attempts_and_survives_tidying(kit: Kit) -> None:
    launcher = kit.make()
    assert launcher.log(RUN).text == ""
    for attempt, word in ((1, "first"), (2, "second")):
        launcher.launch(job({"kind": "end", "say": word}, attempt=attempt))
        kit.settle(launcher, RUN, Presence.ENDED, attempt)
    launcher.tidy(RUN)
    page = launcher.log(RUN, limit_bytes=3)
    assert (page.text, page.next_offset) == ("fir", 3)
    assert launcher.log(RUN, offset=3).text == "st\nsecond\n"
    assert launcher.log(RUN, offset=-4).text == "ond\n"
    assert launcher.log(RUN, offset=13).next_offset == 13


def test_runs_do_not_know_each_other(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end"}, run="run-1"))
    launcher.launch(job({"kind": "end"}, run="run-2"))
    kit.settle(launcher, "run-1", Presence.ENDED)
    kit.settle(launcher, "run-2", Presence.ENDED)
    assert (kit.starts("run-1"), kit.starts("run-2")) == (1, 1)


def test_a_launcher_that_can_launch_is_healthy(kit: Kit) -> None:
    assert kit.make().check() is None
