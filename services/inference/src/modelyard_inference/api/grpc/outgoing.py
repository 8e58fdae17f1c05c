"""The calls of one connection, and what is sent for them: as quickly as the caller takes it, and no longer than it may.

What one turn of the event loop answers goes out in one write.
"""

from __future__ import annotations

import asyncio
from contextvars import Context

from modelyard_common.errors import ModelyardError

from modelyard_inference.api.grpc.calls import Call, Pairs
from modelyard_inference.api.grpc.edge import our_fault
from modelyard_inference.api.grpc.frames import ErrorCode, block_of
from modelyard_inference.api.grpc.framing import ENCODINGS, header_text
from modelyard_inference.api.grpc.house import House
from modelyard_inference.api.grpc.http2 import Http2
from modelyard_inference.api.grpc.status import StatusCode, status_of

__all__ = ["Outgoing"]

_UNREAD_S = 60.0
"""How long an answer may lie without being taken, as over HTTP."""
_HEAD = block_of(
    (
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b",".join(ENCODINGS)),
    )
)
_FINE = block_of(((b"grpc-status", b"0"),))


class Outgoing:
    """Carries the answers of one connection.

    Attributes:
        calls: by stream, until all that they send is sent.
        leaving: no call comes any more; the connection ends with the last of them.
    """

    def __init__(self, http2: Http2, transport: asyncio.Transport, house: House) -> None:
        self._http2 = http2
        self._transport = transport
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._stuck: asyncio.TimerHandle | None = None
        self.calls: dict[int, Call] = {}
        self.leaving = False

    # What calls tell.

    @property
    def is_writable(self) -> bool:
        """Whether the caller takes what is sent."""
        return self._stuck is None

    @property
    def is_closing(self) -> bool:
        """Whether the server takes no more messages."""
        return self._house.is_closing

    @property
    def turn(self) -> asyncio.Lock:
        """Held while a message is unpacked on the event loop: one of all calls, however many come at once."""
        return self._house.turn

    def write(self, call: Call, content: bytes) -> None:
        """Send a part of an answer."""
        if not call.is_open:
            return
        if not call.begun:
            call.begun = True
            self._http2.send_head(call.stream, _HEAD)
        if call.unsent or len(content) > self._http2.room(call.stream):
            call.unsent += content
            self.push(call)
        else:
            self._http2.send_data(call.stream, content)
        self.flush_soon()

    def end(self, call: Call, code: StatusCode, text: str, trailers: Pairs) -> None:
        """Send how a call ended, after all that was written."""
        if not call.is_open:
            return
        call.is_open = False
        call.share.close()
        call.ending = (_FINE if code is StatusCode.OK else _status(code, text)) + block_of(trailers)
        if call.unsent:
            self.wait(call, _UNREAD_S)
        else:
            self._finish(call)
        self.flush_soon()

    def acknowledge(self, call: Call) -> None:
        """Let the caller send more."""
        withheld, call.withheld = call.withheld, 0
        self._http2.acknowledge(call.stream, withheld)
        self.flush_soon()

    # What the connection tells.

    def begin(self, call: Call) -> None:
        """Take a call in."""
        self.calls[call.stream] = call
        self._house.calls += 1

    def spawn(self, call: Call, context: Context) -> None:
        """Let a call be answered by a task."""
        if call.timer is not None:
            call.timer.cancel()  # it was for the message, which is there
        if call.deadline is not None:
            call.timer = self._loop.call_at(call.deadline, self._too_late, call)
        call.task = self._loop.create_task(_answered(call), name="gRPC call", context=context)
        call.task.add_done_callback(self._over)

    def wait(self, call: Call, left_s: float) -> None:
        """Wait for the caller, but no longer than that, and than it waits itself."""
        until = self._loop.time() + left_s
        if call.timer is not None:
            call.timer.cancel()
        if call.deadline is not None:
            until = min(until, call.deadline)
        call.timer = self._loop.call_at(until, self._too_late, call)

    def wait_no_more(self, call: Call) -> None:
        """Wait for the caller as long as it waits itself."""
        if call.timer is not None:
            call.timer.cancel()
        call.timer = None if call.deadline is None else self._loop.call_at(call.deadline, self._too_late, call)

    def push(self, call: Call) -> None:
        """Send what the caller takes now."""
        while call.unsent and (room := self._http2.room(call.stream)):
            self._http2.send_data(call.stream, bytes(call.unsent[:room]))
            del call.unsent[:room]
        if call.unsent:
            return
        call.wake()
        if call.ending is not None:
            self._finish(call)

    def push_all(self) -> None:
        """Send of all calls what the caller takes now."""
        for call in [call for call in self.calls.values() if call.unsent]:
            self.push(call)

    def drop(self, call: Call) -> None:
        """Forget a call; its method hears of it if it is still at work."""
        if self.calls.pop(call.stream, None) is None:
            return
        call.is_open = False
        call.share.close()
        if call.timer is not None:
            call.timer.cancel()
        if call.withheld:
            self.acknowledge(call)
        if call.task is None:
            self._house.calls -= 1
        elif call.task is not asyncio.current_task():
            call.task.cancel()
        if self.leaving:
            self._loop.call_soon(self.go_if_done)

    def pause(self) -> None:
        """Wait until the caller reads again."""
        self._stuck = self._loop.call_later(_UNREAD_S, self._transport.abort)

    def resume(self) -> None:
        """Go on."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        for call in self.calls.values():
            call.wake()

    def go_if_done(self) -> None:
        """End the connection if it is only waited for its calls, and there are none."""
        if self.leaving and not self.calls:
            self.close()

    def close(self) -> None:
        """End the connection, and all of its calls."""
        for call in tuple(self.calls.values()):
            call.end(StatusCode.UNAVAILABLE, "the connection is ended")
            self.drop(call)
        self.flush()
        if self.is_writable:
            self._transport.close()
        else:
            self._transport.abort()

    def closed(self) -> None:
        """Give up what nobody waits for any more."""
        if self._stuck is not None:
            self._stuck.cancel()
        for call in tuple(self.calls.values()):
            self.drop(call)

    def hold(self) -> None:
        """Send nothing before the next ``flush``: more is to come in this turn of the event loop."""
        self._flushing = True

    def flush(self) -> None:
        """Send what there is."""
        self._flushing = False
        content = self._http2.taken()
        if content and not self._transport.is_closing():
            self._transport.write(content)

    def flush_soon(self) -> None:
        """Send what there is at the end of this turn of the event loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def _finish(self, call: Call) -> None:
        assert call.ending is not None  # noqa: S101  # or it would not be over
        block = call.ending if call.begun else _HEAD + call.ending
        self._http2.send_head(call.stream, block, is_all=True)
        self.drop(call)

    def _too_late(self, call: Call) -> None:
        if call.is_open:
            call.is_late = True
            call.end(StatusCode.DEADLINE_EXCEEDED, "the deadline of this call has passed")
        else:
            self._http2.reset(call.stream, ErrorCode.CANCEL)
            self.drop(call)
            self.flush_soon()

    def _over(self, task: asyncio.Task[None]) -> None:
        del task
        self._house.calls -= 1


async def _answered(call: Call) -> None:
    try:
        await call.method.answer(call)
        call.end()
    except Exception as exc:
        error: ModelyardError = our_fault(exc)
        call.end(status_of(error), error.message)


def _status(code: StatusCode, text: str) -> bytes:
    return block_of(((b"grpc-status", b"%d" % code), (b"grpc-message", header_text(text))))
