"""What one turn of the event loop brings is answered together, where it asks alike.

Most of the time that a small model's answer takes goes into what is done for each request: who asks, what their head
means, where the answer comes from. Those whose heads mean the same share it. Nobody waits for anybody who is not there
yet: whoever seems to come alone is answered at once (``crowd``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from modelyard_common.crowd import Crowd
from modelyard_common.edge import Edge
from modelyard_common.logs import get_logger
from modelyard_common.raw import Head, RawAnswer

__all__ = ["Asker", "Gathering"]

_log = get_logger(__name__)


class Asker(Protocol):
    """A connection on which a request has come."""

    def reply(self, answer: RawAnswer, request_id: bytes) -> None:
        """Send its answer."""

    def ask_alone(self, head: Head, data: bytes, start: int) -> None:
        """Have it answered by itself; its body starts there."""

    def give_up(self) -> None:
        """Hang up, since no answer can be sent."""


class _Asked(NamedTuple):
    asker: Asker
    head: Head
    data: bytes
    start: int
    """Of its body."""


class Gathering:
    """The requests of one event loop that may be answered together.

    Args:
        edge: answers them.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._waiting: dict[Hashable, list[_Asked]] = {}
        """By their kin."""
        self._since = 0.0
        """When the first of them came."""
        self._crowd = Crowd()

    def take(self, asker: Asker, head: Head, data: bytes, start: int, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a request within this turn of the event loop: at once where nobody else seems to come.

        Args:
            data: the whole request; start: of its body in it.
        """
        if self._crowd.is_alone(loop, self._turned):
            self._answer([_Asked(asker, head, data, start)], time.monotonic())
            return
        if not self._waiting:
            self._since = time.monotonic()
        waiting = self._waiting.get(head.kin)
        if waiting is None:
            waiting = self._waiting[head.kin] = []
        waiting.append(_Asked(asker, head, data, start))

    def _turned(self) -> None:
        """Answer what this turn has brought; what comes meanwhile belongs to the next."""
        groups, self._waiting = self._waiting, {}
        for group in groups.values():
            self._answer(group, self._since)

    def _answer(self, group: list[_Asked], since: float) -> None:
        def send(answers: Sequence[RawAnswer], request_ids: Sequence[bytes]) -> None:
            for (asker, _, _, _), answer, request_id in zip(group, answers, request_ids, strict=True):
                try:
                    asker.reply(answer, request_id)
                except Exception as exc:  # the others have their answers all the same
                    _log.error("reply.failed", error=exc)
                    asker.give_up()

        heads, bodies = [one.head for one in group], [memoryview(data)[start:] for _, _, data, start in group]
        try:
            if self._edge.answer_together(heads, bodies, since, send):
                return
        except Exception as exc:  # who is of another kin has come in the same turn
            _log.error("requests.failed", error=exc)
            for one in group:
                one.asker.give_up()
            return
        for asker, head, data, start in group:
            try:
                asker.ask_alone(head, data, start)
            except Exception as exc:  # likewise
                _log.error("request.failed", error=exc)
                asker.give_up()
