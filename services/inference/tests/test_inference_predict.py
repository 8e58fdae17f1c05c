"""Who answers when candidates fail, are late or refuse; what is written of it; what shadows get."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from inference_fakes import (
    GOOD_ROW,
    NOW,
    SIGNATURE,
    CountingObserver,
    ListReports,
    ListSink,
    StubRuntime,
    digest_of,
    eventually,
    stub_version,
)
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Invalid, NotFound, Overloaded, Unavailable
from modelyard_contracts.bundle_v1 import Column
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.domain.requests import Answer, Failed, Late, Matrix, Query, Rows
from modelyard_inference.domain.routing import Candidate, Routing, Version
from modelyard_inference.usecases.batching import Batching, Limits
from modelyard_inference.usecases.judge_candidate import JudgeCandidate
from modelyard_inference.usecases.patience import Patience
from modelyard_inference.usecases.predict import Predict
from modelyard_inference.usecases.serving import Guard, ServedModels, Serving
from modelyard_inference.usecases.shadow import Shadow

CHAMPION, CANDIDATE = digest_of("a"), digest_of("b")
ROUTING = Routing("power", 7, Version(1, CHAMPION), Candidate(Version(2, CANDIDATE), weight=100))


@dataclass
class Yard:
    """The engine around stubs."""

    champion: StubRuntime = field(default_factory=lambda: StubRuntime(label=0, chance=0.3))
    candidate: StubRuntime = field(default_factory=lambda: StubRuntime(label=1, chance=0.9))
    routing: Routing = ROUTING
    candidate_signature: Any = SIGNATURE
    max_shadow_rows: int = 10
    max_shadow_bytes: int = 1024**2
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        self.sink, self.reports, self.observer = ListSink(), ListReports(), CountingObserver()
        self.served, self.clock = ServedModels(), SystemClock()
        self.lane = ThreadLane("test-champions", threads=1, depth=4)
        self.candidate_lane = ThreadLane("test-candidates", threads=1, depth=4)
        self.judge = JudgeCandidate(self.sink, self.observer, self.reports)
        self.shadow = Shadow(
            lane=self.candidate_lane,
            sink=self.sink,
            judge=self.judge,
            observer=self.observer,
            clock=self.clock,
            max_rows=self.max_shadow_rows,
            max_bytes=self.max_shadow_bytes,
            timeout_s=5,
        )
        numbers = itertools.count(1)
        around = {"sink": self.sink, "observer": self.observer, "clock": self.clock, "limits": Limits(waiting=4)}
        self.predict = Predict(
            served=self.served,
            shadow=self.shadow,
            judge=self.judge,
            observer=self.observer,
            clock=self.clock,
            new_ids=lambda count: [f"p{next(numbers)}" for _ in range(count)],
            champions=Batching(lane=self.lane, **around),
            candidates=Batching(lane=self.candidate_lane, inline=False, **around),
            patience=Patience(self.clock, most=2),
            timeout_s=self.timeout_s,
        )
        self.served.known()
        self.served.serve(
            Serving(
                self.routing,
                stub_version(1, "a", self.champion),
                stub_version(2, "b", self.candidate, self.candidate_signature),
                Guard(3),
            )
        )

    def ask(
        self, *, timeout_s: float = 5.0, rows: int = 1, row: dict[str, Any] | None = None, **changes: Any
    ) -> Answer:
        named = {name: [value] * rows for name, value in (row or GOOD_ROW).items()}
        query = Query("power", Rows(rows, named), NOW, self.clock.monotonic() + timeout_s)
        return asyncio.run(self.predict(msgspec.structs.replace(query, **changes)))

    async def leave(self, *, timeout_s: float = 5.0, after_s: float = 0.05, row: dict[str, Any] | None = None) -> None:
        """Ask, and be gone before there is an answer."""
        named = {name: [value] for name, value in (row or GOOD_ROW).items()}
        query = Query("power", Rows(1, named), NOW, self.clock.monotonic() + timeout_s)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.predict(query), after_s)

    def close(self) -> None:
        self.lane.close()
        self.candidate_lane.close()


@pytest.fixture
def yard() -> Any:
    made: list[Yard] = []

    def make(**changes: Any) -> Yard:
        made.append(Yard(**changes))
        return made[-1]

    yield make
    for one in made:
        for runtime in (one.champion, one.candidate):
            if runtime.hold is not None:
                runtime.hold.set()
        one.close()


def test_the_candidate_answers_its_share_and_the_record_says_so(yard: Any) -> None:
    engine = yard()

    answer = engine.ask(routing_key="k", event_times=(NOW - timedelta(days=1),))

    assert (answer.role, answer.digest, answer.number) == ("candidate", CANDIDATE, 2)
    (record,) = engine.sink.records
    assert (record.id, record.role, record.revision) == ("p1/0", "candidate", 7)
    assert (record.champion, record.version) == (CHAMPION, CANDIDATE)
    assert (record.prediction, record.score) == (1, pytest.approx(0.9))
    assert record.event_time == NOW - timedelta(days=1)
    assert record.features == GOOD_ROW


def test_a_failure_of_the_candidate_is_a_record_beside_the_answer(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(error=RuntimeError("boom")))
    engine.ask(rows=2)

    assert [(event.id, event.role, bool(event.error)) for event in engine.sink.records] == [
        ("p1/0", "champion", False),
        ("p1/1", "champion", False),
        ("p1/0", "candidate", True),
        ("p1/1", "candidate", True),
    ]


def test_when_the_candidate_raises_the_champion_answers_and_it_is_counted(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(error=RuntimeError("the row was 0.7")))

    answer = engine.ask()

    assert (answer.role, answer.digest) == ("champion", CHAMPION)
    (error,) = engine.sink.by_role("candidate")
    assert (error.id, error.version, error.features) == ("p1/0", CANDIDATE, {})
    assert error.error == "it failed (RuntimeError)"
    assert engine.observer.failures == [(2, "candidate", "failed")]


def test_when_the_candidate_is_late_the_champion_answers_within_the_same_deadline(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(hold=threading.Event()))
    started = engine.clock.monotonic()

    answer = engine.ask(timeout_s=3)

    assert answer.role == "champion"
    assert engine.clock.monotonic() - started < 3
    assert engine.sink.by_role("candidate")[0].error == "it did not answer in time"


def test_a_candidate_whose_share_would_hardly_do_for_the_champion_is_not_to_blame_for_being_late(yard: Any) -> None:
    engine = yard(
        champion=StubRuntime(blocking=True, takes_s=0.3), candidate=StubRuntime(blocking=True, hold=threading.Event())
    )

    assert [engine.ask(timeout_s=1).role for _ in range(4)] == ["champion"] * 4

    assert (engine.observer.failures, engine.sink.by_role("candidate"), engine.reports.told) == ([], [], [])


def test_a_candidate_that_is_late_much_longer_than_the_champion_takes_is_to_blame_at_once(yard: Any) -> None:
    engine = yard(
        champion=StubRuntime(blocking=True, takes_s=0.05), candidate=StubRuntime(blocking=True, hold=threading.Event())
    )

    assert engine.ask(timeout_s=1).role == "champion"

    assert engine.observer.failures == [(2, "candidate", "late")]


def test_what_callers_wait_in_vain_adds_up_until_the_candidate_answers(yard: Any) -> None:
    hold = threading.Event()
    engine = yard(champion=StubRuntime(blocking=True, takes_s=0.3), candidate=StubRuntime(blocking=True), timeout_s=1.8)

    failures = []
    for held in (hold, None, hold, hold):
        engine.candidate.hold = held
        engine.ask(timeout_s=1)
        failures.append(len(engine.observer.failures))
    hold.set()

    assert failures == [0, 0, 0, 1]


def test_a_tiny_deadline_says_nothing_by_itself_of_a_candidate_that_is_late(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(blocking=True, hold=threading.Event()))

    assert engine.ask(timeout_s=0.15).role == "champion"

    assert engine.observer.failures == []


def test_when_the_candidate_refuses_rows_that_the_champion_takes_it_is_counted_against_it(yard: Any) -> None:
    wider = SIGNATURE.model_copy(update={"features": (*SIGNATURE.features, Column(name="new", type="number"))})
    engine = yard(candidate_signature=wider)

    assert engine.ask().role == "champion"
    assert engine.sink.by_role("candidate")[0].error == "it refuses rows that the champion takes"


def test_rows_that_both_refuse_are_the_callers_fault(yard: Any) -> None:
    engine = yard()

    with pytest.raises(Invalid, match="load"):
        engine.ask(row={"day": "mon"})

    assert engine.sink.records == []
    assert engine.observer.failures == []


@pytest.mark.parametrize(
    ("champion", "timeout_s"), [(StubRuntime(), -1), (StubRuntime(error=RuntimeError()), 5)], ids=["late", "failed"]
)
def test_what_the_champion_does_not_answer_either_ends_no_rollout(
    yard: Any, champion: StubRuntime, timeout_s: float
) -> None:
    engine = yard(champion=champion, candidate=StubRuntime(error=RuntimeError()))

    for _ in range(4):
        with pytest.raises((Late, Failed)):
            engine.ask(timeout_s=timeout_s)

    assert (engine.reports.told, engine.sink.records) == ([], [])
    assert {role for _, role, _ in engine.observer.failures} == {"champion"}


def test_nonsense_from_the_candidate_is_a_failure(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(chance=float("nan")))

    assert engine.ask().role == "champion"
    assert engine.sink.by_role("candidate")[0].error == "it failed (BadAnswer)"


def test_after_three_failures_in_a_row_the_candidate_is_not_asked_again_and_the_registry_is_told(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(error=RuntimeError()))

    for _ in range(5):
        assert engine.ask().role == "champion"

    assert engine.candidate.calls == 3
    assert engine.reports.told == [("power", CANDIDATE, 7, "tripped", "it failed (RuntimeError)")]


def test_a_candidate_that_hangs_is_found_out_by_callers_who_leave_before_it_is_late(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(blocking=True, hold=threading.Event()))

    async def play() -> None:
        for number in range(1, 4):
            await engine.leave(timeout_s=0.4)
            await asyncio.to_thread(eventually, lambda number=number: len(engine.observer.failures) == number)

    asyncio.run(play())

    assert engine.observer.failures == [(2, "candidate", "late")] * 3
    assert [record.error for record in engine.sink.records] == ["it did not answer in time"] * 3
    assert engine.reports.told == [("power", CANDIDATE, 7, "tripped", "it did not answer in time")]


def test_callers_who_leave_no_time_and_hang_up_say_nothing_of_a_candidate(yard: Any) -> None:
    engine = yard(candidate=StubRuntime(blocking=True, hold=threading.Event()))

    async def play() -> None:
        for _ in range(4):
            await engine.leave(timeout_s=0.15, after_s=0.02)
        await asyncio.sleep(0.2)

    asyncio.run(play())

    assert engine.observer.failures == []
    assert engine.reports.told == []


def test_callers_who_hang_up_say_nothing_of_a_candidate_whose_share_would_hardly_do_for_the_champion(yard: Any) -> None:
    engine = yard(
        champion=StubRuntime(blocking=True, takes_s=0.3), candidate=StubRuntime(blocking=True, hold=threading.Event())
    )
    engine.ask(timeout_s=1)

    async def play() -> None:
        await engine.leave(timeout_s=0.6)
        await asyncio.sleep(0.4)

    asyncio.run(play())

    assert engine.observer.failures == []


@pytest.mark.parametrize(
    ("error", "failures", "trips", "trips_with_the_next"),
    [
        (None, 0, False, False),
        (RuntimeError(), 1, True, False),
        (Invalid("it may be the caller's fault"), 0, False, True),
    ],
    ids=["it answers", "it fails", "it refuses"],
)
def test_what_a_candidate_does_is_counted_though_the_caller_has_left(
    yard: Any, error: Exception | None, failures: int, trips: bool, trips_with_the_next: bool
) -> None:
    engine = yard(candidate=StubRuntime(blocking=True, hold=threading.Event(), error=error))
    guard = engine.served.find("power").guard
    guard.failed()
    guard.failed()

    async def play() -> None:
        await engine.leave()
        engine.candidate.hold.set()
        await asyncio.to_thread(eventually, lambda: engine.observer.batches)

    asyncio.run(play())

    assert engine.observer.failures == [(2, "candidate", "failed")] * failures
    assert engine.observer.answers == []
    assert (guard.tripped, guard.failed()) == (trips, trips_with_the_next)


def test_a_candidate_that_failed_is_counted_though_the_caller_did_not_wait_for_the_champion(yard: Any) -> None:
    engine = yard(
        champion=StubRuntime(blocking=True, hold=threading.Event()), candidate=StubRuntime(error=RuntimeError())
    )

    asyncio.run(engine.leave(after_s=0.5))

    assert engine.observer.failures == [(2, "candidate", "failed")]


def test_an_answer_between_failures_keeps_the_breaker_closed(yard: Any) -> None:
    engine = yard()

    for error in (RuntimeError(), RuntimeError(), None, RuntimeError(), RuntimeError()):
        engine.candidate.error = error
        engine.ask()

    assert engine.candidate.calls == 5
    assert engine.reports.told == []


def test_a_champion_that_fails_is_an_error_without_the_values(yard: Any) -> None:
    engine = yard(champion=StubRuntime(error=RuntimeError("0.7")), routing=replace(ROUTING, candidate=None))

    with pytest.raises(Failed) as caught:
        engine.ask(version="@champion")

    assert "0.7" not in caught.value.message
    assert engine.observer.failures == [(1, "champion", "failed")]


def test_a_slow_champion_is_late_and_its_thread_is_replaced(yard: Any) -> None:
    engine = yard(champion=StubRuntime(blocking=True, hold=threading.Event()))

    with pytest.raises(Late):
        engine.ask(version="1", timeout_s=0.1)
    engine.champion.hold = None

    assert engine.ask(version="1").role == "champion"


def test_a_deadline_that_has_passed_is_late(yard: Any) -> None:
    with pytest.raises(Late):
        yard(routing=replace(ROUTING, candidate=None)).ask(timeout_s=-1, version="@champion")


def test_a_version_can_be_asked_for_by_number_digest_and_alias(yard: Any) -> None:
    engine = yard(routing=replace(ROUTING, candidate=Candidate(Version(2, CANDIDATE), weight=0)))

    answers = [engine.ask(version=name).number for name in ("1", CANDIDATE, "@candidate", "@champion")]

    assert answers == [1, 2, 2, 1]
    with pytest.raises(NotFound, match="there is 1, 2"):
        engine.ask(version="9")


def test_a_former_champion_answers_by_name_and_is_not_logged(yard: Any) -> None:
    engine = yard()
    serving = engine.served.find("power")
    engine.served.serve(replace(serving, kept=(stub_version(5, "e", StubRuntime(label=0)),)))

    assert engine.ask(version="5").digest == digest_of("e")
    assert engine.sink.records == []


def test_unknown_and_unready_models_are_told_apart(yard: Any) -> None:
    engine = yard()
    engine.served.wait("young", "it has no champion yet")

    with pytest.raises(Unavailable, match="no champion"):
        engine.ask(model="young")
    with pytest.raises(NotFound, match="there is power"):
        engine.ask(model="nobody")
    with pytest.raises(Unavailable, match="does not know its models"):
        ServedModels().find("power")


def test_an_event_time_far_ahead_names_its_row(yard: Any) -> None:
    engine = yard()

    with pytest.raises(Invalid, match=r"event_time\[1\]"):
        engine.ask(rows=2, event_times=(NOW, NOW + timedelta(hours=1)))


def test_payloads_that_are_not_sampled_are_logged_without_features(yard: Any) -> None:
    engine = yard(routing=replace(ROUTING, log_payloads=0.0))

    engine.ask()

    (record,) = engine.sink.records
    assert (record.features, record.sampled, record.prediction) == ({}, False, 1)


def test_redacted_features_are_in_no_record(yard: Any) -> None:
    engine = yard(routing=replace(ROUTING, redact=frozenset({"load", "unknown"})))

    engine.ask(rows=2)

    assert [sorted(record.features) for record in engine.sink.records] == [["day", "price"], ["day", "price"]]


def test_a_model_may_redact_all_that_it_takes(yard: Any) -> None:
    engine = yard(routing=replace(ROUTING, redact=frozenset({"load", "price", "day"})))

    engine.ask(rows=2)

    assert [(record.features, record.prediction) for record in engine.sink.records] == [({}, 1), ({}, 1)]


SHADOW = replace(ROUTING, candidate=Candidate(Version(2, CANDIDATE), shadow=True))


def test_a_shadow_gets_copies_and_its_answers_go_only_to_the_log(yard: Any) -> None:
    engine = yard(routing=SHADOW)

    answer = engine.ask()
    engine.shadow.answer(engine.shadow._take(0))

    assert answer.role == "champion"
    assert [(record.id, record.role, record.prediction) for record in engine.sink.records] == [
        ("p1/0", "champion", 0),
        ("p1/0", "shadow", 1),
    ]


def test_a_full_shadow_queue_drops_and_counts_and_nobody_waits(yard: Any) -> None:
    engine = yard(routing=SHADOW, max_shadow_rows=3)

    for _ in range(5):
        engine.ask()

    assert (engine.shadow.waiting_rows, engine.observer.dropped_rows) == (3, 2)
    assert len(engine.sink.by_role("champion")) == 5


def test_a_shadow_queue_is_bounded_in_bytes_too_and_takes_copies_again_once_there_is_room(yard: Any) -> None:
    engine = yard(routing=SHADOW, max_shadow_bytes=250_000)
    long = GOOD_ROW | {"day": "y" * 100_000}

    for row in (long, long, long, GOOD_ROW):
        engine.ask(row=row)
    waiting, dropped = engine.shadow.waiting_rows, engine.observer.dropped_rows
    while engine.shadow._take(0) is not None:
        pass
    engine.ask(row=long)

    assert (waiting, dropped) == (3, 1)
    assert (engine.shadow.waiting_rows, engine.observer.dropped_rows) == (1, 1)


@pytest.mark.parametrize(
    "rows",
    [
        Rows(2, {"a": ["x" * 500, "y" * 500], "b": [1.0, None]}),
        Rows(2, {}, positional=(("x" * 500, "y" * 500),)),
        Rows(2, {}, matrix=Matrix(np.zeros(130), 65)),
        Rows(2, {}, matrix=Matrix([0.5] * 50, 25)),
        Rows(1, {"a": [1.0], "x": [[{"y": "z" * 1000}]]}, extras_ignored=True),
        Rows(1, {"a": [1.0], "x" * 1000: [None]}, extras_ignored=True),
    ],
    ids=["named", "positional", "array", "list", "deep", "name"],
)
def test_rows_know_about_how_much_they_hold(rows: Rows) -> None:
    assert 1000 < rows.held_bytes() < 2000


def test_a_shadow_that_fails_is_logged_and_trips_like_any_candidate(yard: Any) -> None:
    engine = yard(routing=SHADOW, candidate=StubRuntime(error=RuntimeError()))

    for _ in range(5):
        engine.ask()
        if (copy := engine.shadow._take(0)) is not None:
            engine.shadow.answer(copy)

    assert [record.error for record in engine.sink.by_role("shadow")] == ["it failed (RuntimeError)"] * 3
    assert [told[3] for told in engine.reports.told] == ["tripped"]
    assert engine.observer.answers == [(1, "champion", 1)] * 5


def test_the_shadow_worker_empties_its_queue_and_drops_the_rest_at_the_end(yard: Any) -> None:
    engine = yard(routing=SHADOW)
    stop = threading.Event()
    worker = threading.Thread(target=engine.shadow.work, args=(stop,))
    engine.ask()
    worker.start()
    eventually(lambda: engine.sink.by_role("shadow"))
    stop.set()
    worker.join(5)

    engine.ask()
    engine.shadow.work(stop)

    assert engine.observer.dropped_rows == 1


def test_a_lane_that_is_full_refuses_instead_of_queueing() -> None:
    lane, hold = ThreadLane("full", threads=1, depth=1), threading.Event()
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        hold.wait(10)

    waiters = [threading.Thread(target=lambda: lane.call(wait, 10)) for _ in range(2)]
    waiters[0].start()
    begun.wait(5)
    waiters[1].start()
    eventually(lane._jobs.qsize)

    with pytest.raises(Overloaded):
        lane.call(wait, 1)

    hold.set()
    for waiter in waiters:
        waiter.join(5)
    lane.close()


def test_threads_of_a_lane_begin_when_there_is_work_and_no_more_than_it_may_have() -> None:
    lane = ThreadLane("lazy", threads=2)

    def threads() -> int:
        return sum(thread.name == "lazy" for thread in threading.enumerate())

    assert threads() == 0
    lane.call(lambda: None, 5)
    assert threads() == 1
    for _ in range(5):
        lane.call(lambda: None, 5)
    assert threads() == 2
    lane.close()
    eventually(lambda: threads() == 0)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AbstractContextManager[None]]:
    """Have the system give no thread of a name for a while."""
    start = threading.Thread.start

    @contextmanager
    def refused(name: str) -> Iterator[None]:
        def refuse(thread: threading.Thread) -> None:
            if thread.name == name:
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            yield

    return refused


def test_a_lane_that_gets_no_thread_for_a_moment_refuses_and_gets_it_later(no_threads: Any) -> None:
    lane = ThreadLane("poor", threads=1, depth=2)

    with no_threads("poor"):
        for _ in range(5):
            with pytest.raises(Overloaded, match="no thread"):
                lane.call(lambda: None, 1)

    assert lane.call(lambda: "done", 5) == "done"
    lane.close()


def test_a_lane_with_one_thread_less_than_it_may_have_goes_on(no_threads: Any) -> None:
    lane = ThreadLane("fewer", threads=2)
    assert lane.call(lambda: "first", 5) == "first"

    with no_threads("fewer"):
        assert lane.call(lambda: "second", 5) == "second"

    lane.close()


def test_a_thread_that_hangs_and_could_not_be_replaced_is_replaced_for_the_next_job(no_threads: Any) -> None:
    lane, hold = ThreadLane("hangs", threads=1, depth=1), threading.Event()

    lane.call(lambda: None, 5)
    with no_threads("hangs"), pytest.raises(Late):
        lane.call(lambda: hold.wait(30), 0.1)

    assert lane.call(lambda: "done", 5) == "done"
    hold.set()
    eventually(lambda: lane.lost == 0)
    lane.close()


def test_a_lane_hands_on_what_the_work_raises() -> None:
    lane = ThreadLane("raises", threads=1)

    def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        lane.call(work, 1)
    lane.close()
