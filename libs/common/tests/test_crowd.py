"""Who seems to come alone, and when a turn is over: nobody waits for anybody who is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from modelyard_common.crowd import Crowd


class Loop:
    """An event loop whose turns are a test's."""

    def __init__(self) -> None:
        self._soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        self._soon.append((call, args))

    def turn(self) -> None:
        soon, self._soon = self._soon, []
        for call, args in soon:
            call(*args)

    def settle(self) -> int:
        """Turn until nothing is left; return how often that was."""
        turns = 0
        while self._soon:
            self.turn()
            turns += 1
        return turns


class Room:
    """A crowd, and what is told of it."""

    def __init__(self) -> None:
        self.loop, self.crowd, self.turned = Loop(), Crowd(), 0

    def comes(self) -> bool:
        return self.crowd.is_alone(cast(asyncio.AbstractEventLoop, self.loop), self._turn)

    def _turn(self) -> None:
        self.turned += 1


def test_who_comes_after_a_turn_of_one_is_alone_and_the_turn_ends_at_once() -> None:
    room = Room()
    for turn in range(1, 4):
        assert room.comes()
        assert room.loop.settle() == 1
        assert room.turned == turn


def test_who_comes_with_others_or_after_a_turn_of_several_is_not_alone() -> None:
    room = Room()
    assert [room.comes(), room.comes()] == [True, False]
    room.loop.settle()
    assert not room.comes()
    room.loop.settle()
    assert room.comes()


def test_those_who_come_while_others_are_heard_are_of_the_same_turn() -> None:
    room = Room()
    room.comes()
    room.comes()
    room.loop.turn()  # of two: it looks again
    assert room.turned == 0
    assert not room.comes()
    room.loop.turn()
    assert room.turned == 0
    room.loop.turn()  # nobody came since
    assert room.turned == 1
    assert not room.comes()
    assert room.loop.settle() == 1  # the next turn has but one


def test_a_stream_of_new_ones_does_not_keep_the_first_waiting() -> None:
    room = Room()
    room.comes()
    turns = 0
    while not room.turned:
        room.comes()
        room.loop.turn()
        turns += 1
    assert turns == 9
