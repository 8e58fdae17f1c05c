"""The moment after an answer: looked through where requests come in it, slept through where they do not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from modelyard_common.app import create_app
from modelyard_common.awake import Awake
from modelyard_common.health import Health
from modelyard_common.serving import _DrainingServer
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import FakeClock

WINDOW_S = 55e-6


class Loop:
    """Counts turns; each takes ten microseconds."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._next: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self._next.append(lambda: callback(*args))

    @property
    def is_asleep(self) -> bool:
        return not self._next

    def turn(self) -> None:
        due, self._next = self._next, []
        for callback in due:
            callback()
        self.clock.advance(10e-6)


class Server:
    def __init__(self, window_s: float = WINDOW_S) -> None:
        self.loop = Loop()
        self.awake = Awake(window_s, self.loop.clock.monotonic)

    def answers(self) -> int:
        """Answer, and look until it sleeps; return the turns that took."""
        self.awake.answered(cast(asyncio.AbstractEventLoop, self.loop))
        turns = 0
        while not self.loop.is_asleep:
            self.loop.turn()
            turns += 1
        return turns

    def answers_one_after_the_other(self, count: int, *, turns: int = 3) -> None:
        """Have a request come so many turns after each answer, and answer it where it is read."""
        for _ in range(count):
            self.awake.asked()
            self.awake.answered(cast(asyncio.AbstractEventLoop, self.loop))
            for _ in range(turns):
                assert not self.loop.is_asleep
                self.loop.turn()


def test_it_looks_for_as_long_as_it_is_told() -> None:
    assert Server(55e-6).answers() == 7
    assert Server(105e-6).answers() == 12


def test_zero_is_never() -> None:
    server = Server(0)

    assert [server.answers() for _ in range(600)] == [0] * 600


def test_where_the_next_request_comes_at_once_it_stays_awake() -> None:
    server = Server()

    server.answers_one_after_the_other(1000, turns=4)


def test_one_whose_answer_takes_its_time_is_not_waited_for() -> None:
    server = Server()
    server.answers_one_after_the_other(1)

    server.awake.asked()
    server.loop.turn()

    assert server.loop.is_asleep


def test_where_nothing_comes_it_is_soon_tried_but_now_and_then() -> None:
    server = Server()

    looked = [server.answers() > 0 for _ in range(10_000)]

    assert looked[:4] == [True] * 4
    assert sum(looked) < 10_000 / 256 + 9
    assert sum(looked[5000:]) >= 19


def test_one_that_comes_again_in_time_wakes_it_for_good() -> None:
    server = Server()
    for _ in range(4):
        server.answers()
    slept = 0
    while server.answers() == 0:
        slept += 1
    assert slept == 16
    server.awake.answered(cast(asyncio.AbstractEventLoop, server.loop))
    while server.loop.is_asleep:
        server.awake.answered(cast(asyncio.AbstractEventLoop, server.loop))

    server.awake.asked()
    server.loop.turn()

    server.answers_one_after_the_other(100)


def test_where_several_are_answered_in_one_turn_the_next_ones_may_gather() -> None:
    server = Server()
    for _ in range(1000):
        for _ in range(64):
            server.awake.answered(cast(asyncio.AbstractEventLoop, server.loop))
        assert len(server.loop._next) == 1

        server.loop.turn()

        assert server.loop.is_asleep
    server.answers_one_after_the_other(10)


@pytest.mark.parametrize(("awake_us", "turns"), [(0, 0), (55, 7), (105, 12)])
def test_a_server_looks_for_as_long_as_its_settings_say(awake_us: int, turns: int) -> None:
    settings = ServiceSettings(awake_us=awake_us)
    app = create_app(service="awake", settings=settings, routers=[], health=Health())
    awake: Awake = _DrainingServer(app, settings).config.http.keywords["awake"]  # type: ignore[union-attr]
    server = Server()
    awake._clock = server.loop.clock.monotonic
    server.awake = awake

    assert server.answers() == turns


@pytest.mark.parametrize("window_s", [0.0, 0.02])
def test_a_real_loop_polls_its_sockets_meanwhile_and_then_sleeps(window_s: float) -> None:
    async def turns_in(seconds: float) -> int:
        loop, turns = asyncio.get_running_loop(), 0
        selector = cast(Any, loop)._selector
        shipped = selector.select

        def select(timeout: float | None = None) -> Any:
            nonlocal turns
            turns += 1
            return shipped(timeout)

        selector.select = select
        ticks = itertools.count()
        Awake(window_s, lambda: next(ticks) / 2000).answered(loop)
        await asyncio.sleep(seconds)
        return turns

    turns = asyncio.run(turns_in(0.2))

    assert turns > 20 if window_s else turns < 20
