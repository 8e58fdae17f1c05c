"""Connections that speak gRPC, on the event loop that answers: a call is answered in the turn that has read it.

``grpcio``'s own server for asyncio hands each call through a thread and four futures, which costs more than all of a
small model's work. ``http2`` is what is said within frames; here is what gRPC makes of it, with bounds for what a
caller may hold: calls, bytes, and time.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from contextvars import Context
from typing import cast

from modelyard_common.errors import ModelyardError

from modelyard_inference.api.grpc.calls import Call, Metadata, Method
from modelyard_inference.api.grpc.frames import ErrorCode, Http2Error, block_of
from modelyard_inference.api.grpc.framing import ENCODINGS, Packed, seconds_of
from modelyard_inference.api.grpc.house import House
from modelyard_inference.api.grpc.http2 import Http2
from modelyard_inference.api.grpc.outgoing import Outgoing
from modelyard_inference.api.grpc.status import StatusCode, status_of

__all__ = ["Connection"]

_STREAM_WINDOW_BYTES = 1024 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024
"""What a caller may send before it hears that it was taken; large bodies then come without many pauses."""
_GREETING_S = 20.0
"""In which a new connection must say that it speaks HTTP/2."""
_AGE_S = 300.0
"""A connection stays with its pod: without an end, a pod that is added later gets no calls. Shorter costs handshakes,
longer makes scaling up slower to help."""
_GOODBYE_S = 1.0
"""How long a caller has to hear that no more calls are taken, before those that come all the same are refused."""
_GOODBYE = b"goodbye!"
_LAST_OF_ALL = 2**31 - 1
_NOT_POSTED = block_of(((b":status", b"405"), (b"allow", b"POST")))
_NOT_GRPC = block_of(((b":status", b"415"),))


class Connection(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport
    _out: Outgoing

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._http2 = Http2(
            self, most_streams=house.most_calls, stream_bytes=_STREAM_WINDOW_BYTES, connection_bytes=_WINDOW_BYTES
        )
        self._arriving: list[Call] = []
        """Calls that this piece of input has begun."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_saying_goodbye = False

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._out = Outgoing(self._http2, self._transport, self._house)
        if (plain := transport.get_extra_info("socket")) is not None:
            # Else a caller whose machine is gone holds its streams for ever.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._out.flush()
        self._renew(_GREETING_S, self.abort)
        self._house.came(self)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._out.hold()
        try:
            self._http2.receive(data)
        except Http2Error as exc:
            self._http2.go_away(self._http2.last, exc.code)
            self.abort()
            return
        for call in self._arriving:
            if call.is_open and not call.has_all:
                self._out.wait(call, self._house.patience_s)
        self._arriving.clear()
        self._out.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
        self._out.closed()
        self._house.left(self)

    def pause_writing(self) -> None:
        """Read no more from a caller that does not read: what it asks for has to be kept until it does."""
        self._transport.pause_reading()
        self._out.pause()

    def resume_writing(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._out.resume()

    # What the server tells.

    @property
    def is_idle(self) -> bool:
        """Whether it brings no call."""
        return not self._out.calls

    def close(self) -> None:
        """Ask the caller to send no more calls; go once those that it has sent are answered."""
        for call in self._out.calls.values():
            call.wake()
        if self._is_saying_goodbye:
            return
        self._is_saying_goodbye = True
        self._renew(_GOODBYE_S, self._leave)
        self._http2.go_away(_LAST_OF_ALL)
        self._http2.ping(_GOODBYE)  # whoever answers it has read what came before
        self._out.flush()

    def abort(self) -> None:
        """End now."""
        self._out.close()

    def _leave(self) -> None:
        if not self._out.leaving:
            self._out.leaving = True
            self._http2.go_away(self._http2.last)
            self._out.flush_soon()
        self._out.go_if_done()

    def _renew(self, after_s: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(after_s, then)

    # What HTTP/2 tells.

    def greeted(self) -> None:
        """Expect calls now; a connection that gets old is asked to go."""
        if not self._is_saying_goodbye:
            # Connections that were opened together do not all come back together.
            self._renew(_AGE_S * random.uniform(0.9, 1.1), self.close)

    def called(self, stream: int, metadata: Metadata, *, is_all: bool) -> None:
        """Begin a call, or refuse it."""
        if self._out.leaving:
            self._http2.reset(stream, ErrorCode.REFUSED_STREAM)
            return
        if (refusal := _refusal(metadata)) is not None:
            self._http2.send_head(stream, refusal, is_all=True)
            return
        house = self._house
        method = house.methods.get(metadata.get(b":path", b""), _UNKNOWN)
        call = Call(self._out, stream, method, metadata, house.held.share(), min(house.most_bytes, method.most_bytes))
        call.has_all = is_all
        self._out.begin(call)
        try:
            self._admit(call)
        except ModelyardError as exc:
            call.end(status_of(exc), exc.message)
            return
        if call.encoding not in ENCODINGS:
            call.end(StatusCode.UNIMPLEMENTED, "grpc-encoding must be identity, deflate or gzip")
        elif call.method is _UNKNOWN:
            call.end(StatusCode.UNIMPLEMENTED, "there is no such method")
        elif house.calls > house.most_calls:
            call.end(StatusCode.RESOURCE_EXHAUSTED, f"{house.most_calls} calls are being answered already")
        elif call.method.streams:
            self._out.spawn(call, Context())
        elif is_all:
            self._answer(call)
        else:
            self._arriving.append(call)

    def _admit(self, call: Call) -> None:
        """Take in who calls and how long it waits. Raise Unauthenticated or Invalid."""
        if not call.method.is_open:
            call.principal = self._house.authenticator.authenticate(call.text(b"authorization"))
        if (timeout := call.metadata.get(b"grpc-timeout")) is not None:
            call.deadline = self._loop.time() + seconds_of(timeout)

    def sent(self, stream: int, data: bytes, weight: int, *, is_all: bool) -> None:
        """Take a part of a call."""
        call = self._out.calls.get(stream)
        if call is None or not call.is_open:
            self._http2.acknowledge(stream, weight)
            return
        call.has_all = is_all
        try:
            was_whole = call.is_whole
            call.take(data)
            self._look_at(call, was_whole=was_whole)
        except ModelyardError as exc:
            call.end(status_of(exc), exc.message)
        if call.is_open and call.method.streams and call.messages:
            call.withheld += weight  # who sends more than is answered waits
        else:
            self._http2.acknowledge(stream, weight)
        if call.is_open and (is_all or call.method.streams):
            self._answer(call)

    def _look_at(self, call: Call, *, was_whole: bool) -> None:
        """Refuse what no caller may send, and wait for the rest of a message no longer than may be."""
        if not call.method.streams:
            if len(call.messages) > (1 if call.is_whole else 0):
                call.end(StatusCode.UNIMPLEMENTED, "the method takes one message, and more came")
        elif was_whole and not call.is_whole:
            self._out.wait(call, self._house.patience_s)
        elif call.is_whole and not was_whole:
            self._out.wait_no_more(call)

    def _answer(self, call: Call) -> None:
        """Answer what is there of a call."""
        if call.method.streams:
            if call.has_all and not call.is_whole:
                call.end(StatusCode.INTERNAL, "the last message is not whole")
            call.wake()
        elif not call.is_whole:
            call.end(StatusCode.INTERNAL, "the message is not whole")
        elif len(call.messages) != 1:
            call.end(StatusCode.UNIMPLEMENTED, f"the method takes one message, and {len(call.messages)} came")
        else:
            # What belongs to this call is not to be found by the next one of this connection.
            context, soon = Context(), call.method.soon
            if soon is None or isinstance(call.messages[0], Packed) or not context.run(soon, call):
                self._out.spawn(call, context)

    def given_up(self, stream: int) -> None:
        """Forget a call."""
        if (call := self._out.calls.get(stream)) is not None:
            self._out.drop(call)

    def may_send(self, stream: int) -> None:
        """Send more of an answer."""
        if not stream:
            self._out.push_all()
        elif (call := self._out.calls.get(stream)) is not None and call.unsent:
            self._out.push(call)

    def heard(self, ping: bytes) -> None:
        """Go, once the caller knows that it is to send no more calls."""
        if self._is_saying_goodbye and ping == _GOODBYE:
            self._leave()

    def leaves(self, code: int) -> None:
        """Answer what is in flight: the caller will send no more calls."""
        if code == ErrorCode.NO_ERROR:
            self._is_saying_goodbye = True
            self._leave()
        else:
            self.abort()


async def _refuse(call: Call) -> None:
    raise AssertionError("a method that is not there is not asked")


_UNKNOWN = Method(_refuse)


def _refusal(metadata: Metadata) -> bytes | None:
    """Return what is answered to what is HTTP/2 and not gRPC."""
    if metadata.get(b":method") != b"POST":
        return _NOT_POSTED
    kind = metadata.get(b"content-type", b"")
    is_grpc = kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))
    return None if is_grpc else _NOT_GRPC
