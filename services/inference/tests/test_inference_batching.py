"""Batches: rows go back to their owners, one that fails does so alone, who gave up is not run, nobody waits in vain."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inference_fakes import NOW, SIGNATURE, CountingObserver, ListSink, StubRuntime, eventually, stub_version
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import LARGEST, Columns
from modelyard_common import context
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Invalid, Overloaded, Unavailable
from modelyard_contracts.bundle_v1 import Column
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.domain.answers import AnswerReader, BadAnswer
from modelyard_inference.domain.coalescing import answer_all, take
from modelyard_inference.domain.requests import Answer, Late, Matrix, Query, Rows
from modelyard_inference.domain.routing import Routing
from modelyard_inference.usecases.batching import Batching, Limits, Turn
from modelyard_inference.usecases.record import Ask
from modelyard_inference.usecases.serving import LoadedVersion, Serving
from test_inference_spool import a_record

POISON = 13.0
"""A load on which the model breaks."""


@dataclass
class Echo:
    """Answers each row with its own load as the chance; breaks on poison, is off on demand, waits when held."""

    blocking: bool = False
    name: str = "echo"
    hold: threading.Event | None = None
    away: bool = False
    loads: list[list[float]] = field(default_factory=list)

    def predict(self, columns: Columns) -> Predicted:
        loads = columns["load"]
        self.loads.append(loads.tolist())
        if self.hold is not None:
            assert self.hold.wait(20)
        if self.away:
            raise Unavailable("it is away")
        if POISON in loads:
            raise ValueError("it breaks")
        chances = np.where(loads < 0, np.float32(np.nan), loads)
        return Predicted(np.ones(len(loads), dtype=np.int64), np.stack([1 - chances, chances], axis=1))


@dataclass
class Elsewhere(Echo):
    """The same in another process: it is asked on the event loop, and answers in a later turn, or never."""

    blocking: bool = True
    begun: int = 0
    answers: bool = True

    def begin(self, columns: Columns, done: Callable[[Predicted | Exception], None]) -> bool:
        self.begun += 1
        try:
            found: Predicted | Exception = self.predict(columns)
        except Exception as exc:
            found = exc
        if self.answers:
            asyncio.get_running_loop().call_soon(done, found)
        return True


def rows_of(*loads: float) -> Rows:
    count = len(loads)
    return Rows(count, {"load": list(loads), "price": [0.5] * count, "day": ["mon"] * count})


@dataclass
class Yard:
    """Batching around one version."""

    runtime: Any
    limits: Limits = field(default_factory=Limits)
    inline: bool = True
    counts_first: bool = False
    batch_rows: int | None = None

    def __post_init__(self) -> None:
        self.sink, self.observer, self.clock = ListSink(), CountingObserver(), SystemClock()
        self.lane = ThreadLane("test-batches", threads=2, depth=16)
        self.batching = Batching(
            lane=self.lane,
            sink=self.sink,
            observer=self.observer,
            clock=self.clock,
            limits=self.limits,
            inline=self.inline,
            counts_first=self.counts_first,
        )
        self.version = stub_version(1, "a", self.runtime)
        self.ids = itertools.count()

    async def ask(
        self,
        *loads: float,
        timeout_s: float = 15.0,
        version: LoadedVersion | None = None,
        rows: Rows | None = None,
    ) -> Answer:
        return await self.batching.answer(self.turn(*loads, timeout_s=timeout_s, version=version, rows=rows))

    def turn(
        self,
        *loads: float,
        timeout_s: float = 15.0,
        version: LoadedVersion | None = None,
        rows: Rows | None = None,
    ) -> Turn:
        loaded = version or self.version
        query = Query("power", rows or rows_of(*loads), NOW, self.clock.monotonic() + timeout_s)
        serving = Serving(Routing("power", 1, loaded.version, batch_rows=self.batch_rows), loaded)
        return Turn(Ask(query, serving, f"p{next(self.ids)}"), loaded, "champion", query.deadline)


@pytest.fixture
def yard() -> Iterator[Callable[..., Yard]]:
    made: list[Yard] = []

    def make(*args: Any, **changes: Any) -> Yard:
        made.append(Yard(*args, **changes))
        return made[-1]

    yield make
    for one in made:
        hold = getattr(one.runtime, "hold", None)
        if hold is not None:
            hold.set()
        one.lane.close()


async def settled(*asked: Awaitable[Answer]) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def test_what_comes_in_one_turn_of_the_loop_is_one_batch_and_one_write(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo())
    writes: list[int] = []
    append = engine.sink.append
    engine.sink.append = lambda blocks: (writes.append(len(blocks)), append(blocks))[1]  # type: ignore[method-assign]

    async def play() -> list[Answer]:
        await settled(*(engine.ask(0.5) for _ in range(2)))
        engine.runtime.loads.clear()
        writes.clear()
        return await asyncio.gather(*(engine.ask(load) for load in (0.25, 0.5, 0.75)))

    answers = asyncio.run(play())

    assert [answer.answers.scores for answer in answers] == [[0.25], [0.5], [0.75]]
    assert engine.runtime.loads == [[0.25, 0.5, 0.75]]
    assert writes == [3]
    assert engine.observer.batches[-1] == (3, 3)


def test_whoever_comes_alone_is_answered_before_the_loop_turns(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo())

    async def play() -> Answer:
        turned = False

        def turn() -> None:
            nonlocal turned
            turned = True

        asyncio.get_running_loop().call_soon(turn)
        answer = await engine.ask(0.5)
        assert not turned
        return answer

    assert asyncio.run(play()).answers.scores == [0.5]


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    ("rows", "server", "manifest"), [(1, 1, None), (2, 2, None), (1024, 1024, None), (2, 1024, 2), (2, 2, 1024)]
)
def test_a_batch_holds_no_more_rows_than_server_and_manifest_allow(
    yard: Callable[..., Yard], rows: int, server: int, manifest: int | None, blocking: bool
) -> None:
    engine = yard(Echo(blocking=blocking), Limits(rows=server), batch_rows=manifest)

    async def play() -> None:
        await asyncio.gather(*(engine.ask(0.25, 0.75) if number % 3 else engine.ask(0.5) for number in range(9)))

    asyncio.run(play())

    assert all(len(loads) <= max(rows, 2) for loads in engine.runtime.loads)
    assert sum(map(len, engine.runtime.loads)) == 15


def test_what_queued_while_a_blocking_model_was_busy_runs_as_one_batch(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True, hold=threading.Event()), Limits(patience_s=20))

    async def play() -> list[Answer]:
        asked = [asyncio.ensure_future(engine.ask(0.25))]
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        asked += [asyncio.ensure_future(engine.ask(load)) for load in (0.5, 0.75)]
        await asyncio.sleep(0)
        engine.runtime.hold.set()
        return await asyncio.gather(*asked)

    answers = asyncio.run(play())

    assert [answer.answers.scores for answer in answers] == [[0.25], [0.5], [0.75]]
    assert engine.runtime.loads == [[0.25], [0.5, 0.75]]


class Undescribed(Rows):
    """Rows that it would take long to put into words."""

    def __repr__(self) -> str:
        raise AssertionError("nobody is to describe what was asked")


@pytest.mark.parametrize("blocking", [False, True], ids=["quick", "blocking"])
def test_nobody_puts_into_words_what_was_asked(yard: Callable[..., Yard], blocking: bool) -> None:
    engine = yard(Echo(blocking))
    rows = Undescribed(1, rows_of(0.5).named)

    answers = asyncio.run(settled(*(engine.ask(rows=rows) for _ in range(3))))

    assert [answer.answers.scores for answer in answers] == [[0.5]] * 3


@pytest.mark.parametrize("blocking", [False, True], ids=["quick", "blocking"])
def test_versions_never_share_a_batch(yard: Callable[..., Yard], blocking: bool) -> None:
    engine, other = yard(Echo(blocking)), Echo(blocking)
    second = stub_version(2, "b", other)  # type: ignore[arg-type]  # as much a runtime as the stub

    async def play() -> list[Answer]:
        return await asyncio.gather(*(engine.ask(0.5, version=second if number % 2 else None) for number in range(6)))

    answers = asyncio.run(play())

    assert [answer.number for answer in answers] == [1, 2] * 3
    assert sum(map(len, engine.runtime.loads)) == sum(map(len, other.loads)) == 3


@pytest.mark.parametrize("make", [Echo, lambda: Echo(blocking=True), Elsewhere], ids=["quick", "blocking", "elsewhere"])
def test_one_that_breaks_the_model_fails_alone(yard: Callable[..., Yard], make: Callable[[], Echo]) -> None:
    engine = yard(make())

    async def play() -> list[Any]:
        await settled(engine.ask(0.5), engine.ask(0.5))
        return await settled(*(engine.ask(load) for load in (0.25, POISON, 0.5, -1.0, 0.75)))

    first, poisoned, second, not_finite, third = asyncio.run(play())

    assert [one.answers.scores for one in (first, second, third)] == [[0.25], [0.5], [0.75]]
    assert isinstance(poisoned, ValueError)
    assert type(not_finite).__name__ == "BadAnswer"
    assert len(engine.sink.records) == 5


@pytest.mark.parametrize("wrong", [7, "nonsense", 0.5, None, 2**70, [1]], ids=str)
@pytest.mark.parametrize("right", [[0, 1, 1], [0.0, True, 1]], ids=["integers", "others"])
def test_a_label_that_is_no_class_is_the_failure_of_its_request_alone(right: list[Any], wrong: Any) -> None:
    labels = np.empty(4, dtype=object)
    labels[:] = [right[0], wrong, *right[1:]]
    if isinstance(wrong, int) and wrong < 10:
        labels = np.array(labels.tolist())
    chances = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
    reader = AnswerReader(SIGNATURE)

    with_chances = reader.split([1, 1, 2], Predicted(labels, chances))
    without = reader.split([1, 1, 2], Predicted(labels, None))

    for first, second, third in (with_chances, without):
        assert isinstance(second, BadAnswer)
        assert not isinstance(first, BadAnswer)
        assert not isinstance(third, BadAnswer)
        assert [list(map(type, one.labels)) for one in (first, third)] == [[int], [int, int]]
        assert [first.labels, third.labels] == [[0], [1, 1]]
    assert [with_chances[0].scores, with_chances[2].scores] == [  # type: ignore[union-attr]  # seen above
        pytest.approx([0.1]),
        pytest.approx([0.8, 0.7]),
    ]
    with pytest.raises(BadAnswer, match="a label is no class"):
        reader.one(4, Predicted(labels, chances))


def test_rows_that_do_not_fit_are_refused_before_they_meet_others(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True))

    async def play() -> list[Any]:
        return await settled(engine.ask("high"), engine.ask(0.5))  # type: ignore[arg-type]  # that is the mistake

    wrong, right = asyncio.run(play())

    assert isinstance(wrong, Invalid)
    assert right.answers.scores == [0.5]
    assert engine.runtime.loads == [[0.5]]


def test_a_runtime_that_is_away_is_not_asked_again_for_each(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True, away=True, hold=threading.Event()), Limits(patience_s=20))

    async def play() -> list[Any]:
        asked = [asyncio.ensure_future(engine.ask(0.25))]
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        asked += [asyncio.ensure_future(engine.ask(0.5)) for _ in range(8)]
        await asyncio.sleep(0)
        engine.runtime.hold.set()
        return await settled(*asked)

    assert {type(outcome) for outcome in asyncio.run(play())} == {Unavailable}
    assert len(engine.runtime.loads) == 2


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_who_gave_up_leaves_the_queue_before_it_runs(yard: Callable[..., Yard], how: str) -> None:
    engine = yard(Echo(blocking=True, hold=threading.Event()), Limits(waiting=2, patience_s=20))

    async def play() -> list[Any]:
        first = asyncio.ensure_future(engine.ask(0.25))
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        given_up = asyncio.ensure_future(engine.ask(0.5, timeout_s=0.05 if how == "late" else 15))
        waits = asyncio.ensure_future(engine.ask(0.75))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await engine.ask(0.9)
        if how == "cancelled":
            given_up.cancel()
        (end,) = await settled(given_up)
        comes_later = asyncio.ensure_future(engine.ask(0.6))
        await asyncio.sleep(0)
        engine.runtime.hold.set()
        return [end, *await settled(first, waits, comes_later)]

    end, *answers = asyncio.run(play())

    assert isinstance(end, Late if how == "late" else asyncio.CancelledError)
    assert [answer.answers.scores[0] for answer in answers] == pytest.approx([0.25, 0.75, 0.6])
    assert [len(loads) for loads in engine.runtime.loads] == [1, 2]


def test_a_runtime_elsewhere_is_asked_without_a_thread(yard: Callable[..., Yard]) -> None:
    engine = yard(Elsewhere())
    engine.lane.close()

    async def play() -> list[Answer]:
        return await asyncio.gather(*(engine.ask(load) for load in (0.25, 0.5, 0.75)))

    assert [answer.answers.scores for answer in asyncio.run(play())] == [[0.25], [0.5], [0.75]]
    assert engine.runtime.loads == [[0.25], [0.5, 0.75]]


def test_a_runtime_elsewhere_that_does_not_answer_makes_its_callers_late(yard: Callable[..., Yard]) -> None:
    engine = yard(Elsewhere(answers=False))

    async def play() -> list[Any]:
        return await settled(engine.ask(0.5, timeout_s=0.05))

    assert [type(one) for one in asyncio.run(play())] == [Late]


@pytest.mark.parametrize("first", [True, False])
def test_a_lone_answer_is_counted_before_it_leaves_where_counts_outlive_the_process(
    yard: Callable[..., Yard], *, first: bool
) -> None:
    engine = yard(Echo(), counts_first=first)
    counted: list[int] = []

    async def play() -> None:
        engine.batching.answer_soon(engine.turn(0.5), lambda _: counted.append(len(engine.observer.answers)))

    asyncio.run(play())

    assert counted == [1 if first else 0]
    assert len(engine.observer.answers) == 1


def test_a_request_that_waits_for_a_lane_has_one_trace_before_and_after(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True))

    async def play() -> tuple[str | None, str | None]:
        later: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        context.request_id.set("r-1")
        engine.batching.answer_soon(engine.turn(0.5), lambda answer: later.set_result(context.trace_in_hand()))
        return context.trace_in_hand(), await later

    before, after = asyncio.run(play())

    assert before == after is not None


def test_a_blocking_model_answers_without_coroutines_as_with_them(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True, hold=threading.Event()), Limits(waiting=3, patience_s=20))
    heard: dict[str, Any] = {}

    async def play() -> None:
        def ask(name: str, *loads: float, **more: Any) -> Any:
            return engine.batching.answer_soon(
                engine.turn(*loads, **more), lambda answer: heard.setdefault(name, answer)
            )

        ask("first", 0.25)
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        leave = ask("left", 0.5)
        ask("late", 0.5, timeout_s=0.05)
        ask("poisoned", POISON)
        with pytest.raises(Overloaded):
            ask("too many", 0.5)
        leave()
        leave()
        ask("good", 0.75)
        async with asyncio.timeout(20):
            while "late" not in heard:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)
            engine.runtime.hold.set()
            while len(heard) < 4:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        leave()

    asyncio.run(play())

    assert heard.keys() == {"first", "late", "poisoned", "good"}
    assert [heard[name].answers.scores for name in ("first", "good")] == [[0.25], [0.75]]
    assert [type(heard[name]) for name in ("late", "poisoned")] == [Late, ValueError]
    assert engine.runtime.loads[:2] == [[0.25], [POISON, 0.75]]


def test_who_left_while_their_batch_ran_is_told_nothing(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True, hold=threading.Event()), Limits(patience_s=20))
    heard: list[Any] = []

    async def play() -> None:
        leave = engine.batching.answer_soon(engine.turn(0.25), heard.append)
        assert leave is not None
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        leave()
        engine.runtime.hold.set()
        await engine.ask(0.5)

    asyncio.run(play())

    assert heard == []
    assert len(engine.sink.records) == 1


def test_a_run_that_hangs_holds_up_the_others_only_for_a_while(yard: Callable[..., Yard]) -> None:
    hold = threading.Event()
    engine = yard(Echo(blocking=True, hold=hold), Limits(patience_s=0.05))

    async def play() -> Answer:
        hangs = asyncio.ensure_future(engine.ask(0.25))
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        engine.runtime.hold = None
        answer = await engine.ask(0.5)
        assert not hangs.done()
        hold.set()
        await hangs
        return answer

    assert asyncio.run(play()).answers.scores == [0.5]


def test_a_version_that_hangs_on_all_its_inputs_leaves_others_their_threads(yard: Callable[..., Yard]) -> None:
    hold = threading.Event()
    engine = yard(Echo(blocking=True, hold=hold), Limits(patience_s=0.01, threads=1))
    other = stub_version(2, "b", Echo(blocking=True))  # type: ignore[arg-type]  # as much a runtime as the stub

    async def play() -> tuple[Answer, list[Answer], list[list[float]]]:
        hang = [asyncio.ensure_future(engine.ask(0.25))]
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        hang += [asyncio.ensure_future(engine.ask(0.75)) for _ in range(3)]
        await asyncio.sleep(0.2)
        answer = await engine.ask(0.5, version=other, timeout_s=5.0)
        begun = list(engine.runtime.loads)
        hold.set()
        return answer, await asyncio.gather(*hang), begun

    answer, late, begun = asyncio.run(play())

    assert (answer.answers.scores, begun) == ([0.5], [[0.25]])
    assert [one.answers.scores for one in late] == [[0.25], *[[0.75]] * 3]


def test_large_requests_run_alone(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(), Limits(inline_rows=2))

    async def play() -> list[Answer]:
        return await asyncio.gather(engine.ask(0.1, 0.2, 0.3), engine.ask(0.5), engine.ask(0.5, 0.6, 0.7))

    answers = asyncio.run(play())

    assert [len(answer.answers.labels) for answer in answers] == [3, 1, 3]
    assert sorted(map(len, engine.runtime.loads)) == [1, 3, 3]


def test_a_blocking_model_is_asked_once_for_larger_requests_too(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo(blocking=True, hold=threading.Event()), Limits(inline_rows=2, rows=16, patience_s=20))

    async def play() -> list[Answer]:
        asked = [asyncio.ensure_future(engine.ask(0.5))]
        await asyncio.to_thread(eventually, lambda: engine.runtime.loads)
        asked += [asyncio.ensure_future(engine.ask(*loads)) for loads in ((0.1,) * 4, (0.2,) * 4, (0.3,) * 5)]
        await asyncio.sleep(0)
        engine.runtime.hold.set()
        return await asyncio.gather(*asked)

    asyncio.run(play())

    assert [len(loads) for loads in engine.runtime.loads] == [1, 8, 5]


def test_a_runtime_that_began_to_block_meanwhile_does_not_block_the_loop(yard: Callable[..., Yard]) -> None:
    engine = yard(Echo())
    threads: list[int] = []
    predict = engine.runtime.predict

    def noted(columns: Columns) -> Predicted:
        threads.append(threading.get_ident())
        return predict(columns)

    async def play() -> list[Answer]:
        await settled(engine.ask(0.5), engine.ask(0.5))
        engine.runtime.predict = noted
        asked = [asyncio.ensure_future(engine.ask(load)) for load in (0.25, 0.75)]
        asyncio.get_running_loop().call_soon(setattr, engine.runtime, "blocking", True)
        return await asyncio.gather(*asked)

    answers = asyncio.run(play())

    assert [answer.answers.scores for answer in answers] == [[0.25], [0.75]]
    assert threading.get_ident() not in threads


LOADS = st.one_of(st.sampled_from([POISON, -1.0]), st.integers(0, 8).map(lambda eighths: eighths / 8))
REQUESTS = st.lists(st.lists(LOADS, min_size=1, max_size=4), min_size=1, max_size=24)


@settings(max_examples=60)
@given(
    requests=REQUESTS,
    waves=st.lists(st.integers(0, 3), max_size=24),
    rows=st.integers(1, 12),
    make=st.sampled_from([Echo, Elsewhere, lambda: Echo(blocking=True)]),
)
def test_each_gets_what_it_would_have_got_alone(
    requests: list[list[float]], waves: list[int], rows: int, make: Callable[[], Echo]
) -> None:
    engine = Yard(make(), Limits(rows=rows))

    async def one(place: int, loads: list[float]) -> Answer:
        for _ in range(waves[place] if place < len(waves) else 0):
            await asyncio.sleep(0)
        return await engine.ask(*loads)

    async def play() -> list[Any]:
        return await settled(*(one(place, loads) for place, loads in enumerate(requests)))

    try:
        outcomes = asyncio.run(play())
    finally:
        engine.lane.close()

    for loads, outcome in zip(requests, outcomes, strict=True):
        if POISON in loads:
            assert isinstance(outcome, ValueError)
        elif -1.0 in loads:
            assert type(outcome).__name__ == "BadAnswer"
        else:
            assert outcome.answers.scores == loads
    answered = sum(len(loads) for loads in requests if not {POISON, -1.0} & set(loads))
    assert len(engine.sink.records) == answered
    for record in engine.sink.records:
        assert record.score == record.features["load"]


@given(st.integers(1, 64), st.integers(0, 63))
def test_finding_one_that_fails_costs_few_runs(count: int, bad: int) -> None:
    runtime = Echo()
    binder = stub_version(1, "a", runtime).binder  # type: ignore[arg-type]  # as much a runtime as the stub
    bounds = [binder.bind(rows_of(POISON if number == bad else 0.5)) for number in range(count)]

    outcomes = answer_all(runtime.predict, AnswerReader(SIGNATURE), bounds)

    assert [isinstance(outcome, Exception) for outcome in outcomes] == [number == bad for number in range(count)]
    assert len(runtime.loads) <= 1 + 2 * count.bit_length()


def test_nothing_is_halved_for_those_who_have_gone() -> None:
    runtime = Echo()
    binder = stub_version(1, "a", runtime).binder  # type: ignore[arg-type]  # as much a runtime as the stub
    bounds = [binder.bind(rows_of(load)) for load in (0.5, POISON)]

    outcomes = answer_all(runtime.predict, AnswerReader(SIGNATURE), bounds, lambda: False)

    assert all(isinstance(one, ValueError) for one in outcomes)
    assert len(runtime.loads) == 1


@dataclass
class Ticket:
    rows: int
    alone: bool = False


@given(st.lists(st.builds(Ticket, st.integers(1, 9), st.booleans())), st.integers(1, 12))
def test_batches_keep_the_order_and_the_limit(tickets: list[Ticket], most: int) -> None:
    queue, batches = deque(tickets), []
    while batch := take(queue, most):
        batches.append(batch)

    assert [ticket for batch in batches for ticket in batch] == tickets
    for batch in batches:
        assert len(batch) == 1 or (sum(ticket.rows for ticket in batch) <= most and not any(t.alone for t in batch))


NUMBERS = st.one_of(
    st.floats(-1e3, 1e3), st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**6), 10**6), st.none()
)


def as_listed(rows: int, names: Sequence[str], values: Sequence[Any] | bytes) -> tuple[Sequence[str], list[Any]]:
    """Return what is logged as whoever reads its block has it."""
    return names, list(a_record(0)._replace(rows=rows, names=names, values=values).plain_values())


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=16), min_size=6, max_size=6),
    datatype=st.sampled_from(["<f2", "<f4", "<f8", ">f8", "<i8"]),
)
def test_an_array_is_logged_with_the_values_of_its_list(values: list[float], datatype: str) -> None:
    signature = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:2]})
    binder = stub_version(1, "a", StubRuntime(), signature).binder
    array = np.array(values).astype(datatype)

    names, logged = binder.logged(binder.bind(Rows(3, {}, matrix=Matrix(array, 2), source="inputs[0]")))
    listed = as_listed(3, names, logged)

    if array.dtype.kind == "f":
        assert len(logged) == max(4, array.dtype.itemsize) * 6  # in no more bytes than they came in
    else:
        assert not isinstance(logged, bytes)
    assert str(listed) == str((("load", "price"), array.tolist()))


@pytest.mark.parametrize("datatype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("wrong", [float("inf"), float("-inf")])
def test_an_infinite_number_in_an_array_is_refused_whatever_its_width(datatype: str, wrong: float) -> None:
    signature = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:2]})
    binder = stub_version(1, "a", StubRuntime(), signature).binder
    array = np.array([0.5, 1.0, wrong, 1.0], dtype=datatype)

    with pytest.raises(Invalid, match=r"^\[1\]\.load: must lie between"):
        binder.bind(Rows(2, {}, matrix=Matrix(array, 2), source="inputs[0]"))


@given(st.floats(allow_nan=False), st.integers(0, 79), st.sampled_from(["<f4", "<f8"]))
@example(np.nextafter(LARGEST, np.inf), 5, "<f8")
@example(-np.nextafter(LARGEST, np.inf), 5, "<f8")
@example(-LARGEST, 79, "<f4")
def test_an_array_is_taken_exactly_if_all_its_numbers_are_of_32_bits(number: float, place: int, datatype: str) -> None:
    signature = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:2]})
    binder = stub_version(1, "a", StubRuntime(), signature).binder
    rows = 40
    array = np.zeros(rows * 2)
    array[place] = number
    with np.errstate(over="ignore"):
        matrix = Matrix(array.astype(datatype), 2)

    if abs(matrix.values[place]) <= LARGEST:
        assert binder.bind(Rows(rows, {}, matrix=matrix, source="inputs[0]")).numbers.shape == (rows, 2)
    else:
        with pytest.raises(Invalid, match="must lie between"):
            binder.bind(Rows(rows, {}, matrix=matrix, source="inputs[0]"))


@given(rows=st.integers(1, 80), values=st.lists(NUMBERS, min_size=2, max_size=2), array=st.booleans())
def test_a_matrix_is_bound_as_its_columns_are(rows: int, values: list[Any], array: bool) -> None:
    signature = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:2]})
    binder = stub_version(1, "a", StubRuntime(), signature).binder
    flat: Any = values * rows
    columns = {"load": flat[::2], "price": flat[1::2]}
    matrix = Matrix(np.array(flat, dtype=np.float64) if array else flat, 2)
    if array:
        columns = {
            name: [None if value is None or value != value else float(value) for value in column]
            for name, column in columns.items()
        }

    outcomes: list[Any] = []
    for given_rows in (Rows(rows, columns), Rows(rows, {}, matrix=matrix, source="inputs[0]")):
        try:
            bound = binder.bind(given_rows)
            outcomes.append((bound.numbers.tolist(), str(as_listed(rows, *binder.logged(bound)))))
        except Invalid as exc:
            outcomes.append(exc.message)

    assert str(outcomes[0]) == str(outcomes[1])


@pytest.mark.parametrize(
    ("named", "narrow", "says"),
    [
        ({"m": [0.5]}, ["m"], ""),
        ({"m": [0.5], "day": ["mon"]}, ["m"], ""),
        ({"m": [0.5]}, [], "m: is not a feature"),
        ({"m": [0.5], "n": [0.5]}, ["m", "n"], "is not a feature"),
        ({"m": [0.5], "load": [0.5]}, ["m", "load"], "m: is not a feature"),
    ],
    ids=["alone", "beside a text", "no matrix", "one of two", "beside the feature itself"],
)
def test_a_matrix_of_one_column_is_all_numeric_features_only_where_nothing_is_guessed(
    named: dict[str, Any], narrow: list[str], says: str
) -> None:
    features = (SIGNATURE.features[0], Column(name="day", type="category", required=False))
    binder = stub_version(1, "a", StubRuntime(), SIGNATURE.model_copy(update={"features": features})).binder
    rows = Rows(1, named, narrow=narrow)

    if says:
        with pytest.raises(Invalid, match=says):
            binder.bind(rows)
    else:
        assert binder.bind(rows).numbers.tolist() == [[0.5]]
    with pytest.raises(Invalid, match="load"):  # of a model of two numbers it is none
        stub_version(1, "a", StubRuntime()).binder.bind(rows)


COUNTED = SIGNATURE.model_copy(
    update={
        "features": (
            Column(name="load", type="number"),
            Column(name="count", type="integer"),
            Column(name="age", type="integer", required=False),
        )
    }
)


def ways(load: Any, count: Any, age: Any, rows: int) -> list[Rows]:
    """Return the same rows as they may come."""
    named = {name: [value] * rows for name, value in (("load", load), ("count", count), ("age", age))}
    texts = {name: ["" if value is None else str(value) for value in column] for name, column in named.items()}
    listed = Rows(rows, {}, matrix=Matrix([load, count, age] * rows, 3), source="inputs[0]")
    array = np.array([load, count, np.nan if age is None else age] * rows)
    return [
        Rows(rows, named),
        Rows(rows, texts, untyped=True),
        listed,
        Rows(rows, {}, matrix=Matrix(array, 3), source="inputs[0]"),
    ]


@pytest.mark.parametrize("rows", [1, 200])
@pytest.mark.parametrize("way", range(4), ids=["named", "text", "list", "array"])
def test_a_part_of_an_integer_is_refused_and_named(way: int, rows: int) -> None:
    binder = stub_version(1, "a", StubRuntime(), COUNTED).binder

    for age in (4, 4.0, None):
        taken = binder.bind(ways(0.5, 3.0, age, rows)[way]).numbers
        assert taken[:, :2].tolist() == [[0.5, 3.0]] * rows
    for count, age, says in ((1.5, 4, r"^\[0\]\.count: must be a whole number"), (1, 0.25, r"^\[0\]\.age: must be")):
        with pytest.raises(Invalid, match=says) as caught:
            binder.bind(ways(0.5, count, age, rows)[way])
        assert len(caught.value.errors) == min(rows, 20)
