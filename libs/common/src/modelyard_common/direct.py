"""Connections that answer raw routes themselves, in the turn of the event loop that has read their request.

An ASGI application costs a task, a scope and four messages for each request, which is more than all of a small
model's work. So a request of a raw route that is there as a whole goes to the edge as it is, and its answer goes out
in one write. Everything else is uvicorn's: parsing, pipelining, keep-alive, drain; and so is every request that is
large, comes in chunks, asks before it sends, or that its route leaves to a coroutine.

Callers send the same head again and again. One that the parser has read is remembered byte by byte, with what it
means; the next request that begins with the same bytes, at a place where a request begins, and has as long a body,
need not be parsed. So nothing is understood here that the parser has not understood before.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from modelyard_common.awake import Awake
from modelyard_common.connections import BoundedProtocol
from modelyard_common.edge import Edge
from modelyard_common.gathering import Gathering
from modelyard_common.raw import Caller, Head, RawAnswer

__all__ = ["DirectProtocol", "Learned"]

_MOST_BYTES = 32 * 1024
"""A longer body may come in several parts, and takes long enough to read that a task does not matter."""
_MOST_HEAD_BYTES = 2048
_HEADS = 512
_END = b"\r\n\r\n"
_UNIQUE = frozenset({b"x-request-id", b"traceparent"})
"""Headers that are another in each request: their heads never come again."""


class _Known(NamedTuple):
    """A head that was read before, and how long the body is that it announces."""

    head: Head
    length: int


class Learned:
    """What the connections of a server need not work out again.

    Attributes:
        heads: those that were read before, and what they mean.
    """

    def __init__(self) -> None:
        self.heads: dict[bytes, _Known] = {}
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._preamble = (b"", False)

    def learn(self, raw: bytes, head: Head, length: int) -> None:
        """Remember what the parser made of these bytes. Of too many the oldest go."""
        if len(raw) > _MOST_HEAD_BYTES or not _UNIQUE.isdisjoint(head.headers):
            return
        if len(self.heads) >= _HEADS:
            del self.heads[next(iter(self.heads))]
        self.heads[raw] = _Known(head, length)

    def preamble(self, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
        """Return the headers of every answer as bytes, and whether they say that the connection closes.

        uvicorn makes another list of them each second, for the date.
        """
        if headers is not self._headers:
            written = b"".join(b"%b: %b\r\n" % pair for pair in headers)
            self._preamble = (written, (b"connection", b"close") in headers)
            self._headers = headers
        return self._preamble


class DirectProtocol(BoundedProtocol):
    """One connection.

    Args:
        edge: of the application.
        learned: shared by the connections of a server.
        gathering, awake: likewise.
    """

    def __init__(
        self, *args: Any, edge: Edge, learned: Learned, gathering: Gathering, awake: Awake, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._edge = edge
        self._learned = learned
        self._gathering = gathering
        self._awake = awake
        self._expected: tuple[RequestResponseCycle, Head, Any] | None = None
        self._chunk: bytes | None = None
        """What came in one piece from where a request begins, while it is parsed."""
        self._is_asking = False
        """A request with a known head is being answered."""
        self._caller: tuple[Caller, contextvars.Context] | None = None
        """Who waits for an answer, and where what belongs to their request is found."""
        self._hangs_up = False
        self._held = b""
        """What came behind it."""
        self._idle_since: float | None = None
        """Loop time at which such a request was answered, until something else comes."""

    @property
    def expendable(self) -> tuple[int, float]:
        """Who goes first where room is needed; nobody who is answered."""
        return (0, 0.0) if self._is_asking else super().expendable

    def data_received(self, data: bytes) -> None:
        """Answer a request whose head is known; leave the rest to the parser."""
        if self._is_asking:
            self._held += data
            self.flow.pause_reading()
            return
        if not self._is_between_requests():
            super().data_received(data)
            return
        end = data.find(_END, 0, _MOST_HEAD_BYTES) + len(_END)
        known = self._learned.heads.get(data[:end])
        if known is not None and len(data) - end == known.length:
            self._begin_asking()
            if known.head.kin is not None:
                self._gathering.take(self, known.head, data, end, self.loop)
                return
            if self._ask(known.head, data[end:]):
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Leave what begins with a request to the parser."""
        self._chunk, self._idle_since = data, None
        super().data_received(data)
        self._chunk = None

    def ask_alone(self, head: Head, data: bytes, start: int) -> None:
        """Answer a request that was gathered with others by itself.

        Args:
            start: of its body.
        """
        if not self.transport.is_closing() and not self._ask(head, data[start:]):
            held, self._held = self._held, b""
            if held:
                self.flow.resume_reading()
            self._parse(data + held)
            if self._hangs_up:  # since: it was told to while the request was gathered
                super().shutdown()

    def _is_between_requests(self) -> bool:
        """Return whether the next byte begins a request, and nothing is being answered."""
        if self._is_arriving and self._received:
            return False
        return self.cycle is None or self.cycle.response_complete

    def _begin_asking(self) -> None:
        self._is_asking, self._idle_since = True, None
        self._awake.asked()
        self._unset_keepalive_if_required()

    def _ask(self, head: Head, body: bytes) -> bool:
        """Ask the edge; False, having done nothing, if it leaves this request to the application."""
        # What belongs to this request is not to be found by the next one of this connection.
        if not self._ask_edge(head, body, self.reply):
            self._is_asking = False
            return False
        self._is_arriving = False
        return True

    def _ask_edge(self, head: Head, body: bytes, send: Callable[[RawAnswer, bytes], None]) -> bool:
        here, caller = contextvars.Context(), Caller()
        if not here.run(self._edge.answer_soon, head, body, send, caller):
            return False
        if caller.left is not None:
            self._caller = caller, here
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let whoever waits for an answer leave."""
        super().connection_lost(exc)
        if self._caller is not None:
            (caller, here), self._caller = self._caller, None
            if caller.left is not None:
                here.run(caller.left)

    def reply(self, answer: RawAnswer, request_id: bytes) -> None:
        """Send the answer to a request with a known head."""
        self._is_arriving = False
        self._is_asking, self._caller = False, None
        if self.transport.is_closing():
            return
        closes = self._write(answer, request_id, self.server_state.default_headers, self._hangs_up)
        self.server_state.total_requests += 1
        if closes:
            self.transport.close()
            return
        self._since = self._idle_since = self.loop.time()
        self._awake.answered(self.loop)
        if self._held:
            data, self._held = self._held, b""
            self.flow.resume_reading()
            self.data_received(data)

    def give_up(self) -> None:
        """Hang up, since no answer can be sent."""
        self._is_asking = False
        self.transport.abort()

    def tick(self) -> None:
        """Count a moment of waiting, and end a connection on which nothing was asked for long."""
        super().tick()
        # uvicorn has a timer for this after each answer, which costs more than to look now and then.
        if self._idle_since is not None and self.loop.time() - self._idle_since > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Hang up: after the answer, if one is under way."""
        self._hangs_up = True
        if not self._is_asking:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast("dict[str, Any]", cycle.scope)
        is_small = not cycle.waiting_for_100_continue and _is_small(scope["headers"])
        head = self._edge.head_of(scope) if is_small else None
        if head is None:
            super()._start_asgi_task(cycle, app)
            return
        self._expected = (cycle, head, app)
        if not cycle.more_body:  # it came behind another, and has waited
            self._answer()

    def on_message_complete(self) -> None:
        """Answer what is there as a whole now."""
        super().on_message_complete()
        if self._expected is not None and not self._expected[0].more_body:
            self._answer()

    def _answer(self) -> None:
        assert self._expected is not None  # noqa: S101  # it has just been set
        (cycle, head, app), self._expected = self._expected, None
        body = bytes(cycle.body)
        if self._chunk is not None and cycle.keep_alive:
            end = self._chunk.find(_END) + len(_END)
            if body and end + len(body) == len(self._chunk):
                self._learned.learn(self._chunk[:end], head, len(body))
        if not self._ask_edge(head, body, partial(self._send, cycle)):
            super()._start_asgi_task(cycle, app)

    def _send(self, cycle: RequestResponseCycle, answer: RawAnswer, request_id: bytes) -> None:
        self._caller = None
        if cycle.disconnected or self.transport.is_closing():
            return
        closes = self._write(answer, request_id, cycle.default_headers, not cycle.keep_alive)
        cycle.response_started = cycle.response_complete = True
        if closes:
            self.transport.close()
        cycle.on_response()

    def _write(self, answer: RawAnswer, request_id: bytes, headers: list[tuple[bytes, bytes]], closes: bool) -> bool:
        """Write an answer; return whether it is the last of this connection."""
        preamble, says_so = self._learned.preamble(headers)
        more = answer.headers
        if closes and not says_so:
            more += b"connection: close\r\n"
        content = answer.content
        self.transport.write(
            b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%bx-request-id: %b\r\n\r\n%b"
            % (STATUS_LINE[answer.status], preamble, answer.media_type, len(content), more, request_id, content)
        )
        return closes or says_so


def _is_small(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return value.isdigit() and int(value) <= _MOST_BYTES
    return False
