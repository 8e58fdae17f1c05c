"""A caller that speaks HTTP/2 frame by frame, and a server of small methods to call."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamReset, TrailersReceived
from h2.settings import SettingCodes
from modelyard_common.auth.authenticator import Authenticator
from modelyard_common.bodies import HeldBytes
from modelyard_inference.api.grpc.calls import Call, Method
from modelyard_inference.api.grpc.connections import Connection
from modelyard_inference.api.grpc.house import House

TIMEOUT_S = 10.0


async def say_back(call: Call) -> None:
    """Send the message back."""
    call.answer(await call.unpacked(call.messages.popleft()), ((b"said", b"back"),))


async def say_back_each(call: Call) -> None:
    """Send each message of a stream back."""
    while (message := await call.receive()) is not None:
        await call.send(await call.unpacked(message))


@dataclass
class Stage:
    """A server.

    Attributes:
        held: the method ``/t/Held`` answers once this is set.
        begun, ended: how many calls of ``/t/Held`` have reached their method, and how they ended for it.
    """

    port: int
    house: House
    loop: asyncio.AbstractEventLoop
    held: asyncio.Event
    begun: int = 0
    ended: list[str] = field(default_factory=list)

    def do(self, work: Callable[[], Any]) -> Any:
        """Do something on the server's event loop."""

        async def done() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(TIMEOUT_S)


@contextmanager
def a_stage(**bounds: Any) -> Iterator[Stage]:
    """Serve in a thread."""
    stages: list[Stage] = []
    up = threading.Event()

    async def serve() -> None:
        held, stop = asyncio.Event(), asyncio.Event()

        async def answer_when_let(call: Call) -> None:
            stages[0].begun += 1
            message = await call.unpacked(call.messages.popleft())
            try:
                await held.wait()
            except asyncio.CancelledError:
                stages[0].ended.append("cancelled")
                raise
            stages[0].ended.append("answered")
            call.answer(message)

        most_bytes = 1 << 20
        methods = {
            b"/t/Back": Method(say_back, most_bytes=most_bytes),
            b"/t/Each": Method(say_back_each, streams=True, most_bytes=most_bytes),
            b"/t/Held": Method(answer_when_let, most_bytes=most_bytes),
        }
        usual = {"patience_s": 5.0, "most_bytes": most_bytes, "most_calls": 64, "most_connections": 16}
        house = House(methods, Authenticator(None), **(usual | {"held": HeldBytes(1 << 24)} | bounds))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(house), "127.0.0.1", 0)
        stages.append(Stage(server.sockets[0].getsockname()[1], house, loop, held))
        stopping.append(stop)
        up.set()
        await stop.wait()
        server.close()
        await house.close(1)

    stopping: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(TIMEOUT_S)
    try:
        yield stages[0]
    finally:
        stages[0].loop.call_soon_threadsafe(stopping[0].set)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def framed(message: bytes, packed: int = 0) -> bytes:
    return struct.pack(">BI", packed, len(message)) + message


class Talk:
    """A connection.

    Args:
        window: bytes of an answer that are taken before more are asked for.
    """

    def __init__(self, port: int, *, window: int = 65_535) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.http2 = H2Connection(config=H2Configuration(client_side=True, header_encoding=None))
        self.http2.initiate_connection()
        self.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.events: list[Event] = []
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.http2.data_to_send())

    def call(self, path: str = "/t/Back", *, end: bool = False, **changes: str | None) -> int:
        """Send the head of a call; return its stream."""
        stream: int = self.http2.get_next_available_stream_id()
        head: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "here",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        head |= {name.replace("_", "-"): value for name, value in changes.items()}
        self.http2.send_headers(stream, [(name, value) for name, value in head.items() if value is not None], end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        self.http2.send_data(stream, data, end_stream=end)
        self.flush()

    def ask(self, message: bytes, path: str = "/t/Back", **changes: str | None) -> int:
        stream = self.call(path, **changes)
        self.send(stream, framed(message))
        return stream

    def until(self, found: Callable[[], Any]) -> Any:
        """Read until something is there; the end of the connection ends it too."""
        while not (there := found()):
            data = self.socket.recv(65_536)
            if not data:
                return found()
            self.events += self.http2.receive_data(data)
            self.flush()
        return there

    def of(self, stream: int, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and event.stream_id == stream]

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(stream, DataReceived))

    def head(self, stream: int) -> dict[bytes, bytes]:
        return dict(self.until(lambda: self.of(stream, ResponseReceived))[0].headers)

    def end_of(self, stream: int) -> dict[bytes, bytes]:
        """Return what ends an answer: its trailers, or its head where there is nothing else."""

        def found() -> list[Any]:
            heads = [one for one in self.of(stream, ResponseReceived) if one.stream_ended is not None]
            return self.of(stream, TrailersReceived) or heads

        return dict(self.until(found)[0].headers)

    def status(self, stream: int) -> int:
        return int(self.end_of(stream)[b"grpc-status"])

    def reset_of(self, stream: int) -> int | None:
        found = self.until(lambda: self.of(stream, StreamReset))
        return int(found[0].error_code) if found else None

    def goodbyes(self) -> list[int]:
        """Return the last streams that were named when the server said that it goes."""
        return [event.last_stream_id for event in self.events if isinstance(event, ConnectionTerminated)]

    def is_ended(self) -> bool:
        """Return whether the server ends the connection."""
        try:
            while data := self.socket.recv(65_536):
                self.events += self.http2.receive_data(data)
        except ConnectionResetError:
            return True
        return True

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()
