"""Connections that speak gRPC, on the event loop that answers: a call is answered in the turn that has read it.

``grpcio``'s own server for asyncio hands each call through a thread and four futures, which costs more than all of a
small model's work. HTTP/2 itself (frames, header compression, flow control, the states of streams) is ``jh2``'s; here
is what gRPC makes of it, with bounds for what a caller may hold: calls, bytes, and time.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, cast

from jh2.config import H2Configuration
from jh2.connection import ConnectionState, H2Connection
from jh2.errors import ErrorCodes
from jh2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from jh2.exceptions import ProtocolError
from jh2.hyperframe.frame import GoAwayFrame
from jh2.settings import SettingCodes
from modelyard_common.auth.guards import Authenticator
from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger

from modelyard_inference.api.grpc.calls import Call, Metadata, Method, Pairs
from modelyard_inference.api.grpc.framing import Packed, header_text, seconds_of
from modelyard_inference.api.grpc.status import StatusCode, status_of

__all__ = ["Connection", "House"]

_log = get_logger(__name__)
_CONFIGURATION = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_STREAM_WINDOW_BYTES = 1024 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024
"""What a caller may send before it hears that it was taken; large bodies then come without many pauses."""
_FRAME_BYTES = 256 * 1024
_HEAD_BYTES = 16 * 1024
"""Of the metadata of a call, as grpcio has it."""
_GREETING_S = 20.0
"""In which a new connection must say that it speaks HTTP/2."""
_AGE_S = 300.0
"""A connection stays with its pod: without an end, a pod that is added later gets no calls. Calls in flight finish."""
_UNREAD_S = 60.0
"""How long an answer may lie without being taken, as over HTTP."""
_GOODBYE_S = 1.0
"""How long a caller has to hear that no more calls are taken, before those that come all the same are refused."""
_GOODBYE = b"goodbye!"
_MOST_STREAM = 2**31 - 1
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_HEAD: Pairs = ((b":status", b"200"), _CONTENT_TYPE, (b"grpc-accept-encoding", b"identity"))
_FINE: Pairs = ((b"grpc-status", b"0"),)
_NOT_POSTED: Pairs = ((b":status", b"405"), (b"allow", b"POST"))
_NOT_GRPC: Pairs = ((b":status", b"415"),)


@dataclass
class House:
    """What all connections of a server share.

    Attributes:
        methods: by path.
        patience_s: how long the one message of a call may take to arrive.
        most_bytes: of one message.
        most_calls: at a time, of all connections together.
        most_connections: at a time. Beyond, one without a call makes room.
        connections: the oldest first.
        calls: that are being answered, also for callers that have gone.
    """

    methods: Mapping[bytes, Method]
    authenticator: Authenticator
    patience_s: float
    most_bytes: int
    most_calls: int
    most_connections: int
    connections: dict[Connection, None] = field(default_factory=dict)
    calls: int = 0
    is_closing: bool = False
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    def came(self, connection: Connection) -> None:
        """Take a connection in."""
        self.connections[connection] = None
        if len(self.connections) > self.most_connections:
            next((one for one in self.connections if one.is_idle), connection).abort()

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.pop(connection, None)
        if not self.connections:
            self._emptied.set()

    async def close(self, grace_s: float) -> None:
        """Take no more calls, give those in flight their time, end."""
        self.is_closing = True
        for connection in tuple(self.connections):
            connection.close()
        try:
            async with asyncio.timeout(grace_s):
                while self.connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            for connection in tuple(self.connections):
                connection.abort()


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._arriving: list[Call] = []
        """Calls that this piece of input has begun."""
        self._flushing = False
        self._stuck: asyncio.TimerHandle | None = None
        self._is_greeted = False
        self._last = 0
        """The highest stream that was taken."""
        self._is_saying_goodbye = self._is_leaving = False
        self._timer: asyncio.TimerHandle | None = None
        self._http2 = H2Connection(config=_CONFIGURATION)

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        if (plain := transport.get_extra_info("socket")) is not None:
            # Else a caller whose machine is gone holds its streams for ever.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._http2.initiate_connection()
        self._http2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: self._house.most_calls,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
                SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEAD_BYTES,
            }
        )
        self._http2.increment_flow_control_window(_WINDOW_BYTES)
        self._timer = self._loop.call_later(_GREETING_S, self.abort)
        self._flush()
        self._house.came(self)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._flushing = True
        try:
            for event in self._http2.receive_data(data):
                if (taken := _TAKEN.get(type(event))) is not None:
                    taken(self, event)
        except ProtocolError:
            # The library has written why.
            self._flush()
            self.abort()
            return
        for call in self._arriving:
            if call.is_open and call.task is None and not call.method.streams:
                self._wait(call, self._house.patience_s)
        self._arriving.clear()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what nobody waits for any more."""
        del exc
        for timer in (self._timer, self._stuck):
            if timer is not None:
                timer.cancel()
        for call in tuple(self._calls.values()):
            self._drop(call)
        self._house.left(self)

    def pause_writing(self) -> None:
        """Read no more from a caller that does not read: what it asks for has to be kept until it does."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._stuck = self._loop.call_later(_UNREAD_S, self._transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        for call in self._calls.values():
            call.wake()

    # What the server tells.

    @property
    def is_idle(self) -> bool:
        """Whether it brings no call."""
        return not self._calls

    def close(self) -> None:
        """Ask the caller to send no more calls; go once those that it has sent are answered."""
        for call in self._calls.values():
            call.wake()
        if self._is_saying_goodbye or self._transport is None:
            return
        self._is_saying_goodbye = True
        self._renew(_GOODBYE_S, self._leave)
        self._go_away(_MOST_STREAM)
        with suppress(ProtocolError):
            # Whoever answers this has read what came before it.
            self._http2.ping(_GOODBYE)
        self._flush()

    def abort(self) -> None:
        """End now."""
        for call in tuple(self._calls.values()):
            call.end(StatusCode.UNAVAILABLE, "the server ends")
            self._drop(call)
        self._flush()
        if self._transport is None:
            return
        if self._stuck is None:
            self._transport.close()
        else:
            self._transport.abort()

    def _leave(self) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            self._go_away(self._last)
        self._go_if_done()

    def _go_if_done(self) -> None:
        if self._is_leaving and not self._calls and self._transport is not None:
            self._flush()
            self._transport.close()

    def _go_away(self, last: int) -> None:
        # The library's own way to say this also ends what is in flight.
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.write(GoAwayFrame(0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR).serialize())

    def _renew(self, after_s: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(after_s, then)

    # What HTTP/2 tells.

    def _greeted(self, event: RemoteSettingsChanged) -> None:
        del event
        if not self._is_greeted and not self._is_saying_goodbye:
            self._is_greeted = True
            # Connections that were opened together do not all come back together.
            self._renew(_AGE_S * random.uniform(0.9, 1.1), self.close)
        self._push_all()

    def _called(self, event: RequestReceived) -> None:
        stream = event.stream_id
        if self._is_leaving:
            self._reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        self._last = stream
        metadata: Metadata = dict(event.headers)
        if (refusal := _refusal(metadata)) is not None:
            self._http2.send_headers(stream, refusal, end_stream=True)
            self._reset(stream)
            return
        house = self._house
        method = house.methods.get(metadata.get(b":path", b""), _UNKNOWN)
        call = Call(self, stream, method, metadata, None, house.most_bytes)
        self._calls[stream] = call
        house.calls += 1
        try:
            if not method.is_open:
                call.principal = house.authenticator.authenticate(call.text(b"authorization"))
            if (timeout := metadata.get(b"grpc-timeout")) is not None:
                call.deadline = self._loop.time() + seconds_of(timeout)
        except ModelyardError as exc:
            call.end(status_of(exc), exc.message)
            return
        if metadata.get(b"grpc-encoding", b"identity") != b"identity":
            call.end(StatusCode.UNIMPLEMENTED, "messages must not be compressed")
        elif method is _UNKNOWN:
            call.end(StatusCode.UNIMPLEMENTED, "there is no such method")
        elif house.calls > house.most_calls:
            call.end(StatusCode.RESOURCE_EXHAUSTED, f"{house.most_calls} calls are being answered already")
        elif method.streams:
            self._spawn(call, Context())
        else:
            self._arriving.append(call)

    def _sent(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            try:
                call.messages.extend(call.parts.take(event.data))
            except Packed:
                call.end(StatusCode.INTERNAL, "a message says that it is compressed, and its call does not")
            except ModelyardError as exc:
                call.end(status_of(exc), exc.message)
            if call.method.streams and call.is_open and call.messages:
                call.withheld += event.flow_controlled_length
                call.wake()
                return
        self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _sent_all(self, event: StreamEnded) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        call.has_all = True
        if not call.is_open:
            return
        if not call.parts.is_whole:
            call.end(StatusCode.INTERNAL, "the last message is not whole")
        elif call.method.streams:
            call.wake()
        elif len(call.messages) != 1:
            call.end(StatusCode.UNIMPLEMENTED, f"the method takes one message, and {len(call.messages)} came")
        else:
            context = Context()
            soon = call.method.soon
            if soon is None or not context.run(soon, call):
                self._spawn(call, context)

    def _given_up(self, event: StreamReset) -> None:
        if (call := self._calls.get(event.stream_id)) is not None:
            self._drop(call)

    def _may_send(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._push_all()
        elif (call := self._calls.get(event.stream_id)) is not None and call.unsent:
            self._push(call)

    def _heard(self, event: PingAckReceived) -> None:
        if self._is_saying_goodbye and event.ping_data == _GOODBYE:
            self._leave()

    def _caller_leaves(self, event: ConnectionTerminated) -> None:
        """Answer what is in flight: the caller will send no more calls, and the library would send nothing."""
        if event.error_code == ErrorCodes.NO_ERROR:
            self._http2.state_machine.state = ConnectionState.SERVER_OPEN
            self._is_saying_goodbye = True
            self._leave()
        else:
            self.abort()

    # What calls tell.

    @property
    def is_writable(self) -> bool:
        """Whether the caller takes what is sent."""
        return self._stuck is None

    @property
    def is_closing(self) -> bool:
        """Whether the server takes no more messages."""
        return self._house.is_closing

    def write(self, call: Call, content: bytes) -> None:
        """Send a part of an answer."""
        if not call.is_open:
            return
        try:
            if not call.begun:
                call.begun = True
                self._http2.send_headers(call.stream, _HEAD)
            if not call.unsent and len(content) <= self._room(call):
                self._http2.send_data(call.stream, content)
            else:
                call.unsent += content
                self._push(call)
        except ProtocolError:
            self._drop(call)
        self._flush_soon()

    def end(self, call: Call, code: StatusCode, text: str, trailers: Pairs) -> None:
        """Send how a call ended, after all that was written."""
        if not call.is_open:
            return
        call.is_open = False
        call.ending = (*(_FINE if code is StatusCode.OK else _status(code, text)), *trailers)
        if call.unsent:
            self._wait(call, _UNREAD_S)
        else:
            self._finish(call)
        self._flush_soon()

    def acknowledge(self, call: Call) -> None:
        """Let the caller send more."""
        withheld, call.withheld = call.withheld, 0
        with suppress(ProtocolError):
            self._http2.acknowledge_received_data(withheld, call.stream)
        self._flush_soon()

    def _room(self, call: Call) -> int:
        http2 = self._http2
        return int(min(http2.local_flow_control_window(call.stream), http2.max_outbound_frame_size))

    def _push(self, call: Call) -> None:
        """Send what the caller takes now."""
        try:
            while call.unsent and (room := self._room(call)) > 0:
                self._http2.send_data(call.stream, bytes(call.unsent[:room]))
                del call.unsent[:room]
        except ProtocolError:
            self._drop(call)
            return
        if call.unsent:
            return
        call.wake()
        if call.ending is not None:
            self._finish(call)

    def _push_all(self) -> None:
        for call in [call for call in self._calls.values() if call.unsent]:
            self._push(call)

    def _finish(self, call: Call) -> None:
        trailers = cast(Pairs, call.ending)
        try:
            if call.begun:
                self._http2.send_headers(call.stream, trailers, end_stream=True)
            else:
                self._http2.send_headers(call.stream, (*_HEAD, *trailers), end_stream=True)
            if not call.has_all:
                self._http2.reset_stream(call.stream)
        except ProtocolError:
            pass  # the caller has gone
        self._drop(call)

    def _drop(self, call: Call) -> None:
        """Forget a call; its method hears of it if it is still at work."""
        if self._calls.pop(call.stream, None) is None:
            return
        call.is_open = False
        if call.timer is not None:
            call.timer.cancel()
        if call.withheld:
            self.acknowledge(call)
        if call.task is None:
            self._house.calls -= 1
        elif call.task is not asyncio.current_task():
            call.task.cancel()
        if self._is_leaving:
            self._loop.call_soon(self._go_if_done)

    def _reset(self, stream: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        with suppress(ProtocolError):  # it has ended both ways
            self._http2.reset_stream(stream, code)

    def _wait(self, call: Call, left_s: float) -> None:
        """Wait for the caller, but no longer than that, and than it waits itself."""
        until = self._loop.time() + left_s
        if call.timer is not None:
            call.timer.cancel()
        if call.deadline is not None:
            until = min(until, call.deadline)
        call.timer = self._loop.call_at(until, self._too_late, call)

    def _too_late(self, call: Call) -> None:
        if not call.is_open:
            self._reset(call.stream, ErrorCodes.CANCEL)
            self._drop(call)
            self._flush_soon()
            return
        call.is_late = True
        call.end(StatusCode.DEADLINE_EXCEEDED, "the deadline of this call has passed")

    def _spawn(self, call: Call, context: Context) -> None:
        if call.timer is not None:
            call.timer.cancel()  # it may have been for the message, which is there
        if call.deadline is not None:
            call.timer = self._loop.call_at(call.deadline, self._too_late, call)
        task = self._loop.create_task(_answered(call), name="gRPC call", context=context)
        call.task = task
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        del task
        self._house.calls -= 1

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        content = self._http2.data_to_send()
        if content and self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


async def _answered(call: Call) -> None:
    try:
        await call.method.answer(call)
        call.end()
    except ModelyardError as exc:
        call.end(status_of(exc), exc.message)
    except Exception as exc:
        # Not the exception itself: its message may hold what somebody sent.
        _log.error("request.broken", kind=type(exc).__name__)
        call.end(StatusCode.INTERNAL, "something went wrong here")


async def _refuse(call: Call) -> None:
    raise AssertionError("a method that is not there is not asked")


_UNKNOWN = Method(_refuse)


def _refusal(metadata: Metadata) -> Pairs | None:
    """Return what is answered to what is HTTP/2 and not gRPC."""
    if metadata.get(b":method") != b"POST":
        return _NOT_POSTED
    kind = metadata.get(b"content-type", b"")
    return (
        None
        if kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))
        else _NOT_GRPC
    )


def _status(code: StatusCode, text: str) -> Pairs:
    return ((b"grpc-status", b"%d" % code), (b"grpc-message", header_text(text)))


_TAKEN: dict[type, Callable[[Any, Any], None]] = {
    RemoteSettingsChanged: Connection._greeted,
    RequestReceived: Connection._called,
    DataReceived: Connection._sent,
    StreamEnded: Connection._sent_all,
    StreamReset: Connection._given_up,
    WindowUpdated: Connection._may_send,
    PingAckReceived: Connection._heard,
    ConnectionTerminated: Connection._caller_leaves,
}
