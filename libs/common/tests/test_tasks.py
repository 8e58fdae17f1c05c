"""Background tasks: they come back after a failure, wake at once, end when told, and never spin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from modelyard_common.tasks import StopSignal, Task
from prometheus_client import REGISTRY

WAIT_S = 10


@pytest.fixture
def start() -> Iterator[Callable[[Task], Task]]:
    started: list[Task] = []

    def start(task: Task) -> Task:
        task.start()
        started.append(task)
        return task

    yield start
    for task in started:
        task.stop()
    assert all(task.join(WAIT_S) for task in started)


class Rounds:
    """Counts rounds, and lets a test wait for one."""

    def __init__(self, fails: int = 0) -> None:
        self.count = 0
        self.at: list[float] = []
        self._fails = fails
        self._changed = threading.Condition()

    def __call__(self, stop: StopSignal) -> None:
        del stop
        with self._changed:
            self.count += 1
            self.at.append(time.monotonic())
            self._changed.notify_all()
        if self.count <= self._fails:
            raise RuntimeError("not yet")

    def reach(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, WAIT_S)


Start = Callable[[Task], Task]


def test_a_round_runs_at_once_and_again_after_the_interval(start: Start) -> None:
    rounds = Rounds()
    start(Task("t", rounds, interval_s=0.01))

    assert rounds.reach(3)


def test_a_wake_does_not_wait_for_the_interval(start: Start) -> None:
    rounds = Rounds()
    task = start(Task("t", rounds, interval_s=3600))
    assert rounds.reach(1)

    task.wake()

    assert rounds.reach(2)


def test_a_wake_during_a_round_brings_one_more(start: Start) -> None:
    rounds, inside, go = Rounds(), threading.Event(), threading.Event()

    def run(stop: StopSignal) -> None:
        rounds(stop)
        inside.set()
        assert go.wait(WAIT_S)

    task = start(Task("t", run, interval_s=3600))
    assert inside.wait(WAIT_S)
    for _ in range(3):
        task.wake()
    go.set()

    assert rounds.reach(2)


def test_a_task_that_raises_is_counted_and_runs_again_later_and_later(start: Start) -> None:
    rounds = Rounds(fails=2)
    start(Task("test-failing", rounds, interval_s=0.0))

    assert rounds.reach(4)
    first, second, third, *_ = rounds.at
    assert second - first >= 0.1
    assert third - second >= 0.2
    assert REGISTRY.get_sample_value("modelyard_task_failures_total", {"task": "test-failing"}) == 2


def test_a_loop_of_its_own_ends_when_told(start: Start) -> None:
    ended = threading.Event()

    def run(stop: StopSignal) -> None:
        while not stop.wait(0.01):
            pass
        ended.set()

    task = start(Task("t", run))
    task.stop()

    assert task.join(WAIT_S)
    assert not task.is_alive
    assert ended.is_set()


def test_a_loop_that_returns_early_runs_again_without_spinning(start: Start) -> None:
    rounds = Rounds()
    start(Task("t", rounds))

    assert rounds.reach(3)
    assert rounds.at[2] - rounds.at[0] >= 0.2


def test_stopping_does_not_wait_for_the_interval_or_the_backoff(start: Start) -> None:
    idle, failing = Rounds(), Rounds(fails=1000)
    tasks = [start(Task("idle", idle, interval_s=3600)), start(Task("failing", failing, interval_s=3600))]
    assert idle.reach(1)
    assert failing.reach(3)

    began = time.monotonic()
    for task in tasks:
        task.stop()

    assert all(task.join(WAIT_S) for task in tasks)
    assert time.monotonic() - began < WAIT_S


def test_stopping_right_after_the_start_is_never_missed() -> None:
    tasks = [Task(f"t{number}", lambda stop: None, interval_s=3600) for number in range(50)]
    began = time.monotonic()
    for task in tasks:
        task.start()
        task.stop()

    assert all(task.join(WAIT_S) for task in tasks)
    assert time.monotonic() - began < WAIT_S


def test_starting_twice_is_one_thread(start: Start) -> None:
    task = Task("only-one", Rounds(), interval_s=3600)
    start(task)
    task.start()

    assert [thread.name for thread in threading.enumerate()].count("only-one") == 1


def test_a_task_that_never_started_has_ended() -> None:
    assert Task("t", lambda stop: None).join(0)


def test_a_task_that_does_not_end_is_reported(start: Start) -> None:
    inside, go = threading.Event(), threading.Event()

    def run(stop: StopSignal) -> None:
        inside.set()
        assert go.wait(WAIT_S)

    task = start(Task("t", run, interval_s=1))
    assert inside.wait(WAIT_S)
    task.stop()

    assert not task.join(0.01)
    go.set()
