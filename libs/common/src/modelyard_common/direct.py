"""Connections that answer raw routes themselves, in the turn of the event loop that has read their request.

An ASGI application costs a task, a scope and four messages for each request, which is more than all of a small
model's work. So a request of a raw route that is there as a whole goes to the edge as it is, and its answer goes out
in one write. Everything else is uvicorn's: parsing, pipelining, keep-alive, drain; and so is every request that is
large, comes in chunks, asks before it sends, or that its route leaves to a coroutine.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from modelyard_common.connections import BoundedProtocol
from modelyard_common.edge import Edge
from modelyard_common.raw import RawAnswer, RawRoute

__all__ = ["DirectProtocol"]

_MOST_BYTES = 32 * 1024
"""A longer body may come in several parts, and takes long enough to read that a task does not matter."""


class DirectProtocol(BoundedProtocol):
    """One connection.

    Args:
        edge: of the application.
    """

    def __init__(self, *args: Any, edge: Edge, **named: Any) -> None:
        super().__init__(*args, **named)
        self._edge = edge
        self._expected: tuple[RequestResponseCycle, RawRoute, Any] | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast("dict[str, Any]", cycle.scope)
        route = self._edge.raw_route(scope)
        if route is None or route.soon is None or cycle.waiting_for_100_continue or not _is_small(scope["headers"]):
            super()._start_asgi_task(cycle, app)
            return
        self._expected = (cycle, route, app)
        if not cycle.more_body:  # it came behind another, and has waited
            self._answer()

    def on_message_complete(self) -> None:
        """Answer what is there as a whole now."""
        super().on_message_complete()
        if self._expected is not None and not self._expected[0].more_body:
            self._answer()

    def _answer(self) -> None:
        assert self._expected is not None  # noqa: S101  # it has just been set
        (cycle, route, app), self._expected = self._expected, None
        # What belongs to this request is not to be found by the next one of this connection.
        here = contextvars.Context()
        send = partial(self._send, cycle)
        scope, receive = cast("dict[str, Any]", cycle.scope), cast(Any, cycle.receive)
        if not here.run(self._edge.answer_soon, route, scope, bytes(cycle.body), receive, send):
            super()._start_asgi_task(cycle, app)

    def _send(self, cycle: RequestResponseCycle, answer: RawAnswer, request_id: bytes) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[answer.status]]
        for name, value in (
            *cycle.default_headers,
            (b"content-type", answer.media_type),
            (b"content-length", b"%d" % len(answer.content)),
            *answer.headers,
            (b"x-request-id", request_id),
        ):
            parts += (name, b": ", value, b"\r\n")
            if name == b"connection" and value == b"close":
                cycle.keep_alive = False
        if not cycle.keep_alive and (b"connection", b"close") not in cycle.default_headers:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", answer.content)
        self.transport.write(b"".join(parts))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()


def _is_small(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return value.isdigit() and int(value) <= _MOST_BYTES
    return False
