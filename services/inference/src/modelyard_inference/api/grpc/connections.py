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
from jh2.settings import SettingCodes
from modelyard_common.errors import ModelyardError

from modelyard_inference.api.grpc.calls import Call, Metadata, Method, Pairs
from modelyard_inference.api.grpc.framing import Packed, seconds_of
from modelyard_inference.api.grpc.house import House
from modelyard_inference.api.grpc.outgoing import Outgoing
from modelyard_inference.api.grpc.status import StatusCode, status_of

__all__ = ["Connection"]

_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding=None,
    # It costs a tenth of a call, and guards those who pass headers on. What is read of them is checked here.
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_STREAM_WINDOW_BYTES = 1024 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024
"""What a caller may send before it hears that it was taken; large bodies then come without many pauses."""
_HEAD_BYTES = 16 * 1024
"""Of the metadata of a call, as grpcio has it."""
_GREETING_S = 20.0
"""In which a new connection must say that it speaks HTTP/2."""
_AGE_S = 300.0
"""A connection stays with its pod: without an end, a pod that is added later gets no calls. Shorter costs handshakes,
longer makes scaling up slower to help."""
_GOODBYE_S = 1.0
"""How long a caller has to hear that no more calls are taken, before those that come all the same are refused."""
_GOODBYE = b"goodbye!"
_LAST_OF_ALL = 2**31 - 1
_NOT_POSTED: Pairs = ((b":status", b"405"), (b"allow", b"POST"))
_NOT_GRPC: Pairs = ((b":status", b"415"),)


class Connection(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport
    _out: Outgoing

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._http2 = H2Connection(config=_CONFIGURATION)
        self._arriving: list[Call] = []
        """Calls that this piece of input has begun."""
        self._uncounted = 0
        """Bytes of streams that have ended, which the caller may send again on others."""
        self._last = 0
        """The highest stream that was taken."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_greeted = self._is_saying_goodbye = False

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._out = Outgoing(self._http2, self._transport, self._house)
        if (plain := transport.get_extra_info("socket")) is not None:
            # Else a caller whose machine is gone holds its streams for ever.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._http2.initiate_connection()
        self._http2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: self._house.most_calls,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEAD_BYTES,
            }
        )
        self._http2.increment_flow_control_window(_WINDOW_BYTES)
        self._out.flush()
        self._renew(_GREETING_S, self.abort)
        self._house.came(self)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._out.hold()
        try:
            for event in self._http2.receive_data(data):
                if (taken := _TAKEN.get(type(event))) is not None:
                    taken(self, event)
        except ProtocolError:
            self.abort()  # the library has written why
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
        self._out.go_away(_LAST_OF_ALL)
        with suppress(ProtocolError):
            self._http2.ping(_GOODBYE)  # whoever answers it has read what came before
        self._out.flush()

    def abort(self) -> None:
        """End now."""
        self._out.close()

    def _leave(self) -> None:
        if not self._out.leaving:
            self._out.leaving = True
            self._out.go_away(self._last)
        self._out.go_if_done()

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
        self._out.push_all()

    def _called(self, event: RequestReceived) -> None:
        stream = event.stream_id
        if self._out.leaving:
            self._out.reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        self._last = stream
        metadata: Metadata = dict(event.headers)
        if (refusal := _refusal(metadata)) is not None:
            self._http2.send_headers(stream, refusal, end_stream=True)
            self._out.reset(stream)
            return
        house = self._house
        call = Call(self._out, stream, house.methods.get(metadata.get(b":path", b""), _UNKNOWN), metadata)
        self._out.begin(call)
        try:
            self._admit(call)
        except ModelyardError as exc:
            call.end(status_of(exc), exc.message)
            return
        if metadata.get(b"grpc-encoding", b"identity") != b"identity":
            call.end(StatusCode.UNIMPLEMENTED, "messages must not be compressed")
        elif call.method is _UNKNOWN:
            call.end(StatusCode.UNIMPLEMENTED, "there is no such method")
        elif house.calls > house.most_calls:
            call.end(StatusCode.RESOURCE_EXHAUSTED, f"{house.most_calls} calls are being answered already")
        elif call.method.streams:
            self._out.spawn(call, Context())
        else:
            self._arriving.append(call)

    def _admit(self, call: Call) -> None:
        """Take in who calls and how long it waits. Raise Unauthenticated or Invalid."""
        if not call.method.is_open:
            call.principal = self._house.authenticator.authenticate(call.text(b"authorization"))
        if (timeout := call.metadata.get(b"grpc-timeout")) is not None:
            call.deadline = self._loop.time() + seconds_of(timeout)

    def _sent(self, event: DataReceived) -> None:
        call = self._out.calls.get(event.stream_id)
        if call is not None and call.is_open:
            try:
                call.take(event.data, self._house.most_bytes)
            except Packed:
                call.end(StatusCode.INTERNAL, "a message says that it is compressed, and its call does not")
            except ModelyardError as exc:
                call.end(status_of(exc), exc.message)
            if call.method.streams and call.is_open and call.messages:
                # Who sends more than is answered waits.
                call.withheld += event.flow_controlled_length
                call.wake()
                return
        if event.stream_ended is None:
            self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return
        # The usual call is over with that, and many of them fit into the window of the connection.
        self._uncounted += event.flow_controlled_length
        if self._uncounted > _WINDOW_BYTES // 4:
            self._http2.acknowledge_received_data(self._uncounted, event.stream_id)
            self._uncounted = 0

    def _sent_all(self, event: StreamEnded) -> None:
        call = self._out.calls.get(event.stream_id)
        if call is None:
            return
        call.has_all = True
        if not call.is_open:
            return
        if not call.is_whole:
            call.end(StatusCode.INTERNAL, "the last message is not whole")
        elif call.method.streams:
            call.wake()
        elif len(call.messages) != 1:
            call.end(StatusCode.UNIMPLEMENTED, f"the method takes one message, and {len(call.messages)} came")
        else:
            # What belongs to this call is not to be found by the next one of this connection.
            context, soon = Context(), call.method.soon
            if soon is None or not context.run(soon, call):
                self._out.spawn(call, context)

    def _given_up(self, event: StreamReset) -> None:
        if (call := self._out.calls.get(event.stream_id)) is not None:
            self._out.drop(call)

    def _may_send(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._out.push_all()
        elif (call := self._out.calls.get(event.stream_id)) is not None and call.unsent:
            self._out.push(call)

    def _heard(self, event: PingAckReceived) -> None:
        if self._is_saying_goodbye and event.ping_data == _GOODBYE:
            self._leave()

    def _caller_leaves(self, event: ConnectionTerminated) -> None:
        """Answer what is in flight: the caller will send no more calls, and the library would send nothing."""
        if event.error_code != ErrorCodes.NO_ERROR:
            self.abort()
            return
        self._http2.state_machine.state = ConnectionState.SERVER_OPEN
        self._is_saying_goodbye = True
        self._leave()


async def _refuse(call: Call) -> None:
    raise AssertionError("a method that is not there is not asked")


_UNKNOWN = Method(_refuse)


def _refusal(metadata: Metadata) -> Pairs | None:
    """Return what is answered to what is HTTP/2 and not gRPC."""
    if metadata.get(b":method") != b"POST":
        return _NOT_POSTED
    kind = metadata.get(b"content-type", b"")
    is_grpc = kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))
    return None if is_grpc else _NOT_GRPC


_TAKEN: Mapping[type, Callable[[Any, Any], None]] = {
    RemoteSettingsChanged: Connection._greeted,
    RequestReceived: Connection._called,
    DataReceived: Connection._sent,
    StreamEnded: Connection._sent_all,
    StreamReset: Connection._given_up,
    WindowUpdated: Connection._may_send,
    PingAckReceived: Connection._heard,
    ConnectionTerminated: Connection._caller_leaves,
}
