"""HTTP connections with bounds: how slowly a caller may send or read, how long a head is, how many there are.

uvicorn leaves these to a proxy in front of it: a caller that sends one byte a minute keeps its connection and what the
server holds for it as long as it likes. A request must arrive within a patience plus a second for so many bytes that
came, head and body together; time in which the server itself does not read is not held against the caller. What ends
here is answered where an answer can still be understood, and is counted.

Nobody gets another protocol here, and an offer to change it is no order (RFC 9110, section 7.8). The parser takes it
for one, and what follows for that other protocol; uvicorn would take the rest of the body for the next request. So a
head with such an offer is read again without it, before anything is asked, and its body is a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE
from prometheus_client import Counter
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modelyard_common.logs import get_logger

__all__ = ["TICK_S", "BoundedProtocol", "ConnectionBounds", "tick"]

_log = get_logger(__name__)
TICK_S = 0.5
"""Between two looks at all connections: a timer for each request would cost more than the hot path can spare."""
_SLOWEST_BYTES_PER_S = 16 * 1024
"""Below the uplink of a mobile phone, and a body of 16 MiB still ends within half an hour."""
_MOST_HEAD_BYTES = 64 * 1024
"""As h11 has it: cookies and tokens need a few."""
_UNREAD_S = 60.0
"""How long an answer may lie without a byte of it being taken: readers of streams work between two reads."""
_ENDED = Counter(
    "modelyard_http_connections_ended_total", "Connections that were ended for what their callers did", ["reason"]
)
_REFUSALS = {
    "slow": (408, "Request Timeout", "the request did not arrive in time"),
    "head": (431, "Request Header Fields Too Large", f"the head is larger than {_MOST_HEAD_BYTES} bytes"),
    "full": (503, "Service Unavailable", "there are too many connections; try again later"),
    "malformed": (400, "Bad Request", "this is not HTTP/1.1"),
}


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """What connections may take.

    Attributes:
        patience_s: how long a request may take to arrive, beside the time that its bytes are worth.
        most: connections at a time. Beyond, another makes room.
    """

    patience_s: float
    most: int


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``tick`` must be called for it every ``TICK_S``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: ConnectionBounds,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds
        # From the first moment on a request is expected.
        self._is_arriving = self._is_in_head = True
        self._received = 0
        self._since = 0.0
        """Loop time at which the request began to arrive, or was there."""
        self._unsent = 0
        self._waited_s = 0.0
        """How long this connection has waited for its caller: for a request, or for its answer to be taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, and make room for it if there is none."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self._bounds.most:
            others = (one for one in self.connections if isinstance(one, BoundedProtocol) and one.expendable[0])
            max(others, key=lambda one: one.expendable, default=self).refuse("full")

    @property
    def expendable(self) -> tuple[int, float]:
        """Who goes first where room is needed: whose request is arriving, then who is idle; nobody who is answered (0).

        Of those the one that has been so for longest: whoever means it has sent all of a request by then.
        """
        if self.transport.is_closing():
            return 0, 0.0
        is_idle = self.cycle is None or self.cycle.response_complete
        return 2 if self._is_arriving else int(is_idle), -self._since

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except HttpParserError:
            self.refuse("malformed")
            return
        if self._is_arriving:
            self._received += len(data)
            if self._is_in_head and self._received > _MOST_HEAD_BYTES:
                self.refuse("head")

    def _feed(self, data: bytes) -> None:
        """Have it parsed, heads that offer another protocol without the offer."""
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except HttpParserUpgrade as offer:
                # The position is right behind the head, so that nothing of a body has been looked at.
                rest = memoryview(rest)[offer.args[0] :]
            if self.parser.get_method() == b"CONNECT":  # whose bytes are for somebody else
                self.refuse("malformed")
                return
            head = self._head_without_offer()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self.parser.feed_data(head)

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self._is_arriving = self._is_in_head = True
        self._received = 0
        self._waited_s = 0.0
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is read again."""
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._is_in_head = False

    def on_message_complete(self) -> None:
        """Wait no longer, unless it was a head that is read again."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._is_arriving = False
        self._waited_s = 0.0
        self._since = self.loop.time()

    def tick(self) -> None:
        """Count a moment of waiting, and end the connection when there were too many."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if unsent:
            self._waited_s = self._waited_s + TICK_S if unsent >= before > 0 else 0.0
            if self._waited_s > _UNREAD_S:
                self._end("unread")
        elif self._is_arriving:
            # Whatever came while the loop was busy elsewhere was not late: ticks are counted, and not the clock.
            self._waited_s += 0.0 if self.flow.read_paused else TICK_S
            if self._waited_s > self._bounds.patience_s + self._received / _SLOWEST_BYTES_PER_S:
                self.refuse("slow")

    def refuse(self, reason: str) -> None:
        """Answer, unless an answer has begun or nothing was asked, and hang up."""
        if self.transport.is_closing():
            return
        if self._may_answer(reason):
            self.transport.write(_written(*_REFUSALS[reason]))
        self._is_arriving = False
        _ENDED.labels(reason).inc()
        _log.info("connection.ended", reason=reason)
        self.transport.close()

    def _may_answer(self, reason: str) -> bool:
        if self.pipeline:  # an earlier request is being answered
            return False
        if self._is_in_head:
            is_silent = reason == "slow" and not self._received
            return not is_silent and (self.cycle is None or self.cycle.response_complete)
        return not self.cycle.response_started

    def _end(self, reason: str) -> None:
        _ENDED.labels(reason).inc()
        _log.info("connection.ended", reason=reason)
        self.transport.abort()


def tick(connections: Iterable[object]) -> None:
    """Look at all connections once."""
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol):
            connection.tick()


def _written(status: int, title: str, detail: str) -> bytes:
    body = f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","error":"{detail}"}}'
    head = f"HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
    wait = "retry-after: 1\r\n" if status == 503 else ""
    return f"{head}{wait}connection: close\r\n\r\n{body}".encode()
