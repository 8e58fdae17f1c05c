"""What bodies may take: each by itself, and all that are held at a time together.

A bound on each leaves a server with a thousand connections at a thousand times as much, which no pod has: whoever
sends many large bodies, slowly, would have it killed for its memory, and everybody else's requests with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelyard_common.errors import ModelyardError, Overloaded, TooLarge

__all__ = ["FREE_BYTES", "BoundedBody", "HeldBytes", "Share"]

FREE_BYTES = 32 * 1024
"""Of each body these are not counted: connections are bounded, and a pod has room for as many of them. So a small
request is answered also while large ones fill the rest."""
_Message = dict[str, Any]


class HeldBytes:
    """Counts the bytes of bodies that are held, of all requests of a server.

    Attributes:
        most: that may be held at a time.
        count: that are held now.
    """

    __slots__ = ("count", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0

    def share(self) -> Share:
        """Return the part of one body, of which nothing is there yet."""
        return Share(self)

    def take(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            Overloaded: there is no room for them; they are not counted.
        """
        if self.count + count > self.most:
            raise Overloaded(
                f"the bodies of other requests fill the {self.most} bytes that are held at a time", retry_after_s=1
            )
        self.count += count

    def give_back(self, count: int) -> None:
        """Forget bytes that were counted."""
        self.count -= count

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Count a body while something is done with it. Raise Overloaded when there is no room."""
        share = self.share()
        share.grow(count)
        try:
            yield
        finally:
            share.close()


class Share:
    """What one body takes: all but its first ``FREE_BYTES``."""

    __slots__ = ("_counted", "_held", "_size")

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self._size = self._counted = 0

    def grow(self, count: int) -> None:
        """Count bytes that came. Raise Overloaded when there is no room; they are not counted then."""
        counted = max(0, self._size + count - FREE_BYTES)
        self._held.take(counted - self._counted)
        self._size, self._counted = self._size + count, counted

    def shrink(self, count: int) -> None:
        """Forget bytes that are held no more; nothing beyond what there is."""
        count = min(count, self._size)
        counted = max(0, self._size - count - FREE_BYTES)
        self._held.give_back(self._counted - counted)
        self._size, self._counted = self._size - count, counted

    def close(self) -> None:
        """Forget all of them; a second call does nothing."""
        self.shrink(self._size)


class BoundedBody:
    """Hands a body on, and refuses to go past its bound or that of all.

    Args:
        limit: bytes of this body.
        held: where its bytes count until ``close``, if anywhere.

    Attributes:
        refusal: why no more of it was taken.
        is_asked_for: somebody has begun to read it; a caller that waits for that (``Expect: 100-continue``) sends it.
    """

    def __init__(self, receive: Callable[[], Awaitable[_Message]], limit: int, held: HeldBytes | None = None) -> None:
        self._receive = receive
        self._limit = limit
        self._share = held.share() if held is not None else None
        self._size = 0
        self.refusal: ModelyardError | None = None
        self.is_asked_for = False

    async def __call__(self) -> _Message:
        """Return the next message. Raise TooLarge or Overloaded."""
        self.is_asked_for = True
        message = await self._receive()
        if message["type"] == "http.request":
            try:
                self._take(len(message.get("body", b"")))
            except ModelyardError as exc:
                self.refusal = exc
                raise
        return message

    def close(self) -> None:
        """Let go of it."""
        # The error knows the frames that it went through, and they know this and all parts that came: without the
        # collector of cycles, which a busy server calls seldom, these would stay.
        self.refusal = None
        if self._share is not None:
            self._share.close()

    def _take(self, count: int) -> None:
        self._size += count
        if self._size > self._limit:
            raise TooLarge(f"the body is larger than {self._limit} bytes")
        if self._share is not None:
            self._share.grow(count)
