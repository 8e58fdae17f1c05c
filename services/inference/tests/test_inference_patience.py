"""A version whose process has ended: who waits for it, for how long, and who is asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from modelyard_common.clock import SystemClock
from modelyard_inference.domain.requests import Away, Late
from modelyard_inference.usecases.batching import Turn
from modelyard_inference.usecases.patience import Patience

CLOCK = SystemClock()


@dataclass
class Version:
    """Raises what it is told to, then answers; and remembers how it was asked."""

    errors: list[Exception]
    back: bool = True
    asked: list[Turn] = field(default_factory=list)

    async def answer(self, turn: Turn) -> Any:
        self.asked.append(turn)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def answer_soon(self, turn: Turn, done: Any) -> Any:
        self.asked.append(turn)
        asyncio.get_running_loop().call_soon(done, self.errors.pop(0) if self.errors else "answer")
        return lambda: None

    def away(self, *, began: bool) -> Away:
        return Away("it is away", began=began, is_back=lambda: self.back)


def turn(left_s: float = 20.0) -> Turn:
    nothing = cast(Any, None)
    return Turn(nothing, nothing, "champion", CLOCK.monotonic() + left_s)


def ask(version: Version, left_s: float = 20.0) -> Any:
    return asyncio.run(Patience(CLOCK, most=1).answer(cast(Any, version), turn(left_s)))


def ask_soon(version: Version) -> Any:
    """Ask without a coroutine; return what is handed over."""

    async def play() -> Any:
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        patience = Patience(CLOCK, most=1)
        assert patience.answer_soon(cast(Any, version), turn(), heard.set_result) is not None
        return await heard

    return asyncio.run(play())


@pytest.mark.parametrize("how", [ask, ask_soon])
def test_who_finds_a_version_away_is_answered_when_it_is_back(how: Any) -> None:
    version = Version([])
    version.errors = [version.away(began=False)] * 3

    assert how(version) == "answer"
    assert [one.alone for one in version.asked] == [False] * 4


@pytest.mark.parametrize("how", [ask, ask_soon])
def test_what_was_in_the_hands_of_a_process_that_died_is_asked_once_more_and_alone(how: Any) -> None:
    version = Version([])
    version.errors = [version.away(began=True), version.away(began=False)]

    assert how(version) == "answer"
    assert [one.alone for one in version.asked] == [False, True, True]


def test_what_has_ended_two_processes_is_not_given_to_a_third() -> None:
    version = Version([])
    version.errors = [version.away(began=True)] * 3

    with pytest.raises(Away):
        ask(version)
    assert len(version.asked) == 2


def test_nobody_waits_beyond_the_deadline() -> None:
    version = Version([], back=False)
    version.errors = [version.away(began=False)]

    with pytest.raises(Away):
        ask(version, left_s=0.1)
    assert len(version.asked) == 1


def test_other_errors_are_not_waited_for() -> None:
    version = Version([Late()])

    with pytest.raises(Late):
        ask(version)
    assert len(version.asked) == 1


def test_where_enough_wait_already_the_next_is_told_at_once() -> None:
    version = Version([], back=False)
    version.errors = [version.away(began=False), version.away(began=False)]

    async def play() -> Any:
        patience = Patience(CLOCK, most=1)
        first = asyncio.create_task(patience.answer(cast(Any, version), turn()))
        await asyncio.sleep(0)
        with pytest.raises(Away):
            await patience.answer(cast(Any, version), turn())
        version.back = True
        return await first

    assert asyncio.run(play()) == "answer"


def test_who_leaves_while_a_version_is_away_waits_no_more() -> None:
    version = Version([], back=False)
    version.errors = [version.away(began=False)]
    heard: list[Any] = []

    async def play() -> None:
        patience = Patience(CLOCK, most=1)
        leave = patience.answer_soon(cast(Any, version), turn(), heard.append)
        assert leave is not None
        async with asyncio.timeout(10):
            while not patience._waiting:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0)
            leave()
            while patience._waiting:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)
        version.back = True

    asyncio.run(play())

    assert heard == []
    assert len(version.asked) == 1
