"""Bounds of connections, on real sockets; the test says when a moment has passed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from modelyard_common.connections import TICK_S, BoundedProtocol, ConnectionBounds, tick

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PATIENCE_S, MOST = 2.0, 4
GET = b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n"


class Service:
    """Answers what it was sent, a lot, or once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = asyncio.Semaphore(0)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.asked.release()
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            return
        if scope["path"] == "/wait":
            await self.may.wait()
        answer = b"x" * 20_000_000 if scope["path"] == "/lot" else body
        head = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})


class Stage:
    """A server, and connections to it."""

    def __init__(self, server: uvicorn.Server, service: Service, port: int) -> None:
        self.server, self.service, self._port = server, service, port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, begin: bytes = b"", *, taken: bool = True) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        writer.write(begin)
        if taken:
            port = writer.get_extra_info("sockname")[1]
            await until(lambda: any(one.client[1] == port for one in self._connections))
        return reader, writer

    async def pass_time(self, seconds: float) -> None:
        """Let it be that much later for the connections."""
        for _ in range(round(seconds / TICK_S)):
            tick(self._connections)
            await asyncio.sleep(0)

    @property
    def _connections(self) -> set[Any]:
        return self.server.server_state.connections

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    listener = socket.create_server(("127.0.0.1", 0))
    service = Service()
    bounded: Any = partial(BoundedProtocol, bounds=ConnectionBounds(PATIENCE_S, MOST))
    config = uvicorn.Config(service, http=bounded, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await until(lambda: server.started)
    found = Stage(server, service, listener.getsockname()[1])
    try:
        yield found
    finally:
        found.close()
        service.may.set()
        server.should_exit = True
        await serving


async def until(check: Any) -> None:
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110  # what is looked at belongs to others, and sets no event
            await asyncio.sleep(0.005)


async def said(reader: asyncio.StreamReader) -> bytes:
    """Return what the server said until it hung up."""
    async with asyncio.timeout(20):
        return await reader.read()


@pytest.mark.parametrize(
    ("begin", "answer"),
    [
        (b"", b""),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n1", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "part of a head", "part of a body"],
)
def test_what_does_not_arrive_in_time_is_not_waited_for(begin: bytes, answer: bytes) -> None:
    async def play() -> bytes:
        async with stage() as one:
            reader, _ = await one.connect(begin)
            await asyncio.sleep(0.05)
            await one.pass_time(PATIENCE_S + 1)
            return await said(reader)

    found = asyncio.run(play())

    assert found[: len(answer)] == answer
    assert bool(found) == bool(answer)


def test_a_body_that_flows_may_take_as_long_as_its_bytes_are_worth() -> None:
    body = b"y" * 65_536

    async def play() -> bytes:
        async with stage() as one:
            reader, writer = await one.connect(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (2 * len(body)))
            writer.write(body)
            await until(lambda: any(connection._received > len(body) for connection in one._connections))
            await one.pass_time(PATIENCE_S + 3)
            writer.write(body)
            return await reader.readline()

    assert asyncio.run(play()).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_takes_long_is_waited_for_by_both() -> None:
    async def play() -> bytes:
        async with stage() as one:
            reader, _ = await one.connect(GET % b"wait")
            await one.service.asked.acquire()
            await one.pass_time(100 * PATIENCE_S)
            one.service.may.set()
            return await reader.readline()

    assert asyncio.run(play()).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_nobody_reads_is_let_go() -> None:
    async def play() -> int:
        async with stage() as one:
            reader, _ = await one.connect(GET % b"lot")
            await until(lambda: any(connection.transport.get_write_buffer_size() for connection in one._connections))
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
            await one.pass_time(70)
            await until(lambda: not one._connections)
            return len(one._connections)

    assert asyncio.run(play()) == 0


def test_where_there_is_no_room_the_slowest_makes_it_and_nobody_who_is_being_answered() -> None:
    async def play() -> tuple[bytes, bytes, bytes, list[bytes]]:
        async with stage() as one:
            slow, _ = await one.connect(b"GET / HT")
            waiting = [await one.connect(GET % b"wait") for _ in range(MOST - 1)]
            newcomer, _ = await one.connect(GET % b"wait")
            for _ in range(MOST):
                await one.service.asked.acquire()
            refused, _ = await one.connect(taken=False)
            made_room, turned_away = await said(slow), await said(refused)
            one.service.may.set()
            first = await newcomer.readline()
            return made_room, turned_away, first, [await reader.readline() for reader, _ in waiting]

    made_room, turned_away, first, others = asyncio.run(play())

    assert made_room.startswith(b"HTTP/1.1 503 ")
    assert turned_away.startswith(b"HTTP/1.1 503 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert all(one.startswith(b"HTTP/1.1 200 ") for one in others)


def test_a_pipelined_request_that_stays_away_does_not_speak_into_the_answer_before_it() -> None:
    async def play() -> bytes:
        async with stage() as one:
            reader, _ = await one.connect(GET % b"wait" + b"GET / HT")
            await one.service.asked.acquire()
            await one.pass_time(PATIENCE_S + 1)
            return await said(reader)

    assert b"408" not in asyncio.run(play())


SMUGGLED = b"GET /lot HTTP/1.1\r\nhost: x\r\n\r\n"
OFFER = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AA\r\n"
PLAIN = b"content-length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
AS_TRAILER = b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
NEXT = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnext"


async def answers(*streams: list[bytes]) -> list[list[bytes]]:
    """Return what is answered on a connection for each stream, which is sent in these parts."""
    found = []
    async with stage() as one:
        for parts in streams:
            reader, writer = await one.connect()
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.005)
            found.append((await said(reader)).split(b"HTTP/1.1 ")[1:])
    return found


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"h2c, x"], ids=["h2c", "websocket", "two"])
@pytest.mark.parametrize(
    "body", [PLAIN, CHUNKED, AS_TRAILER % (len(SMUGGLED), SMUGGLED)], ids=["plain", "chunked", "trailer"]
)
def test_a_request_that_offers_another_protocol_keeps_its_body_however_it_is_cut(protocol: bytes, body: bytes) -> None:
    request = OFFER % protocol + body
    whole, head = request + NEXT, request.index(b"\r\n\r\n") + 4
    cuts = [0, 9, head - 50, head - 2, head, head + 1, head + 20, len(request) - 1, len(request), len(whole) - 1]

    found = asyncio.run(answers(*([whole[:cut], whole[cut:]] for cut in cuts)))

    for cut, both in zip(cuts, found, strict=True):
        assert [answer[:3] for answer in both] == [b"200", b"200"], cut
        assert both[0].endswith(b"\r\n\r\n" + SMUGGLED), cut
        assert both[1].endswith(b"\r\n\r\nnext"), cut


def test_many_offers_in_one_segment_are_answered_in_their_order() -> None:
    bodies = [b"%03d" % number for number in range(100)]
    offers = b"".join(OFFER % b"h2c" + b"content-length: 3\r\n\r\n" + body for body in bodies)

    (found,) = asyncio.run(answers([offers + NEXT]))

    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in found] == [*bodies, b"next"]


@pytest.mark.parametrize("target", [b"x:80", b"/"])
def test_nobody_is_connected_elsewhere_and_nothing_behind_is_read(target: bytes) -> None:
    (found,) = asyncio.run(answers([b"CONNECT %b HTTP/1.1\r\nhost: x\r\n\r\n" % target + NEXT + NEXT]))

    assert [answer[:3] for answer in found] == [b"400"]


def test_an_offer_with_two_lengths_is_no_http() -> None:
    both = OFFER % b"h2c" + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"

    (found,) = asyncio.run(answers([both + NEXT]))

    assert [answer[:3] for answer in found] == [b"400"]
