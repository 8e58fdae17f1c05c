"""A call, as its method sees it, and the table of methods."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from modelyard_common.auth.principals import ANONYMOUS, Principal
from modelyard_common.bodies import Share
from modelyard_common.errors import Invalid, ModelyardError

from modelyard_inference.api.bodies import unpacked, unpacked_soon
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.grpc.framing import IDENTITY, Packed, framed, framed_bytes, whole_messages
from modelyard_inference.api.grpc.status import StatusCode

__all__ = ["PROBE_BYTES", "Apart", "Call", "Carrier", "Metadata", "Method", "Pairs"]

Metadata = Mapping[bytes, bytes]
"""What came with a call, by name in lower case; of several with one name the last."""
Pairs = tuple[tuple[bytes, bytes], ...]
Apart = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Does work off the event loop, and returns what it returns."""
PROBE_BYTES = 4 * 1024
"""Of a probe, which names a service at most: nobody has to say who they are to send many of them."""


class Carrier(Protocol):
    """What brings a call, and takes away what is answered."""

    @property
    def is_writable(self) -> bool:
        """Whether the caller takes what is sent."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether the server takes no more messages."""
        ...

    @property
    def turn(self) -> asyncio.Lock:
        """Held while a message is unpacked on the event loop: one of all calls, however many come at once."""
        ...

    def write(self, call: Call, content: bytes) -> None:
        """Send a part of an answer."""
        ...

    def end(self, call: Call, code: StatusCode, text: str, trailers: Pairs) -> None:
        """Send how it ended, after all that was written."""
        ...

    def acknowledge(self, call: Call) -> None:
        """Let the caller send more."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """How a method answers.

    Attributes:
        answer: sends messages, and ends the call or raises; it is cancelled once nobody waits for it any more.
        soon: answers within this turn of the event loop without a task; False, having done nothing, leaves it to
            ``answer``.
        streams: it takes any number of messages, and begins before they are there.
        is_open: probes carry no token.
        most_bytes: of one message, as it travels and unpacked; no more than the server takes.
    """

    answer: Callable[[Call], Awaitable[None]]
    soon: Callable[[Call], bool] | None = None
    streams: bool = False
    is_open: bool = False
    most_bytes: int = LARGE_BYTES


async def _at_once(unpack: Callable[[], bytes]) -> bytes:
    return unpack()


class Call:
    """One call.

    Args:
        most_bytes: of one message, as it travels and unpacked.

    Attributes:
        encoding: of those of its messages that are packed.
        deadline: loop time until which its caller waits; None: as long as it takes.
        messages: that came and are not taken yet.
        has_all: there will be no more.
        begun: its head was sent.
        unsent: what its caller does not take yet; ending: the trailers that follow it, as they are sent.
        withheld: bytes for which the caller may not send others yet.
        share: of the bytes that its server holds, until it is over.
        is_late: it was given up at its deadline.
    """

    __slots__ = (
        "_answering",
        "_carrier",
        "_most_bytes",
        "_partial",
        "_waiter",
        "begun",
        "deadline",
        "encoding",
        "ending",
        "has_all",
        "is_late",
        "is_open",
        "messages",
        "metadata",
        "method",
        "principal",
        "share",
        "stream",
        "task",
        "timer",
        "unsent",
        "withheld",
    )

    def __init__(
        self, carrier: Carrier, stream: int, method: Method, metadata: Metadata, share: Share, most_bytes: int
    ) -> None:
        self._carrier = carrier
        self.stream = stream
        self.method = method
        self.metadata = metadata
        self.encoding = metadata.get(b"grpc-encoding", IDENTITY)
        self.deadline: float | None = None
        self.principal: Principal = ANONYMOUS
        self.messages: deque[bytes] = deque()
        self._partial = bytearray()
        self.has_all = False
        self.withheld = 0
        self.share = share
        self._most_bytes = most_bytes
        self._answering = 0
        self.begun = False
        self.unsent = bytearray()
        self.ending: bytes | None = None
        self.is_open = True
        self.is_late = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None

    def text(self, name: bytes) -> str | None:
        """Return a value of the metadata."""
        value = self.metadata.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing of a message that is not there as a whole."""
        return not self._partial

    def take(self, data: bytes) -> None:
        """Take what came.

        Raises:
            Overloaded: there is no room for it.
            Exception: what ``whole_messages`` raises.
        """
        self.share.grow(len(data))
        self.messages.extend(whole_messages(self._partial, data, self._most_bytes, self.encoding))

    async def unpacked(self, message: bytes, apart: Apart = _at_once) -> bytes:
        """Return a message that came, unpacked.

        It is not done when it comes: what a caller may send ahead is counted as it travels, and may hold a thousand
        times as much.

        Args:
            apart: unpacks what takes long; left out where a method takes no long messages.

        Raises:
            TooLarge: there is more in it than a message may have; nothing beyond that bound is unpacked.
            Overloaded: there is no room for what was in it.
            ModelyardError: it is not packed as its call says, or what ``apart`` raises.
        """
        if not isinstance(message, Packed):
            return message
        encoding = self.encoding.decode()
        try:
            content = await self._unpacked_soon(message, encoding)
            if content is None:
                content = await apart(partial(unpacked, message, encoding, self._most_bytes))
        except Invalid as exc:  # which gRPC does not call an invalid argument
            raise ModelyardError(f"a message is not {encoding}") from exc
        self.share.grow(framed_bytes(content))
        self._answering += framed_bytes(content)
        return content

    async def _unpacked_soon(self, message: bytes, encoding: str) -> bytes | None:
        """Return what is in a message; None where that takes long."""
        async with self._carrier.turn:
            await asyncio.sleep(0)  # others have their turn before the next is unpacked
            return unpacked_soon(message, encoding, self._most_bytes)

    @property
    def left_s(self) -> float | None:
        """How long the caller still waits."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()

    def answer(self, message: bytes, trailers: Pairs = ()) -> None:
        """Send the only message, and end well."""
        self._carrier.write(self, framed(message))
        self._carrier.end(self, StatusCode.OK, "", trailers)

    def end(self, code: StatusCode = StatusCode.OK, text: str = "", trailers: Pairs = ()) -> None:
        """End."""
        self._carrier.end(self, code, text, trailers)

    async def send(self, message: bytes) -> None:
        """Send one of several messages, as quickly as the caller takes them."""
        self._carrier.write(self, framed(message))
        while self.is_open and (self.unsent or not self._carrier.is_writable):
            await self._woken()

    async def receive(self) -> bytes | None:
        """Return the next message, as it came; None after the last. The one before is answered, and held no more."""
        self.share.shrink(self._answering)
        self._answering = 0
        while not self.messages:
            if self.has_all or self._carrier.is_closing:
                return None
            await self._woken()
        message = self.messages.popleft()
        self._answering = framed_bytes(message)
        if not self.messages and self.withheld:
            self._carrier.acknowledge(self)
        return message

    def wake(self) -> None:
        """Tell the method that something has changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
