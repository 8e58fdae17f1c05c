"""What bodies may take: each by itself, and all that are held at a time together.

A bound on each leaves a server with a thousand connections at a thousand times as much, which no pod has: whoever
sends many large bodies, slowly, would have it killed for its memory, and everybody else's requests with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelyard_common.errors import ModelyardError, Overloaded, TooLarge

__all__ = ["BoundedBody", "HeldBytes"]

_Message = dict[str, Any]


class HeldBytes:
    """Counts the bytes of bodies that are held, of all requests of a server.

    Args:
        most: at a time.
    """

    __slots__ = ("_most", "count")

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    def take(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            Overloaded: there is no room for them; they are not counted.
        """
        if self.count + count > self._most:
            raise Overloaded(
                f"the bodies of other requests fill the {self._most} bytes that are held at a time", retry_after_s=1
            )
        self.count += count

    def give_back(self, count: int) -> None:
        """Forget bytes that were counted."""
        self.count -= count

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Count bytes while something is done with them. Raise Overloaded when there is no room."""
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)


class BoundedBody:
    """Hands a body on, and refuses to go past its bound or that of all.

    Args:
        limit: bytes of this body.
        held: where its bytes count until ``close``, if anywhere.

    Attributes:
        refusal: why no more of it was taken.
    """

    def __init__(self, receive: Callable[[], Awaitable[_Message]], limit: int, held: HeldBytes | None = None) -> None:
        self._receive = receive
        self._limit = limit
        self._held = held
        self._taken = 0
        self.refusal: ModelyardError | None = None

    async def __call__(self) -> _Message:
        """Return the next message. Raise TooLarge or Overloaded."""
        message = await self._receive()
        if message["type"] == "http.request":
            try:
                self._take(len(message.get("body", b"")))
            except ModelyardError as exc:
                self.refusal = exc
                raise
        return message

    def close(self) -> None:
        """Let go of what was counted."""
        if self._held is not None:
            self._held.give_back(self._taken)
        self._taken = 0

    def _take(self, count: int) -> None:
        if self._taken + count > self._limit:
            raise TooLarge(f"the body is larger than {self._limit} bytes")
        if self._held is not None:
            self._held.take(count)
        self._taken += count
