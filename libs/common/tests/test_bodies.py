"""Bodies that are held: counted while they arrive and are answered, refused beyond what all may take, let go after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import APIRouter, Request
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.app import framework
from modelyard_common.bodies import FREE_BYTES, BoundedBody, HeldBytes
from modelyard_common.edge import edge_of
from modelyard_common.errors import ModelyardError, Overloaded
from modelyard_common.health import Health
from modelyard_common.lazy_app import LazyApp
from modelyard_common.lifespan import Life
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute, read_body
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import running

MOST = 200_000
LARGE = 150_000


def eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not check():
        assert time.monotonic() < until
        time.sleep(0.01)


@dataclass
class Served:
    url: str
    held: HeldBytes


@pytest.fixture
def served() -> Iterator[Served]:
    router = APIRouter()

    @router.post("/web")
    async def web(request: Request) -> int:
        return len(await request.body())

    async def raw(request: RawRequest) -> RawAnswer:
        if request.body.startswith(b"bug"):
            raise ZeroDivisionError
        return RawAnswer(b"%d" % len(request.body))

    held = HeldBytes(MOST)
    settings = ServiceSettings(max_body_bytes=240_000)
    raw_routes = [RawRoute(lambda method, path: path == "/raw", raw, "/raw")]
    edge = edge_of(settings, "test", raw_routes=raw_routes, held=held)
    app = LazyApp(edge=edge, life=Life("test", Health()), rest=lambda: framework("test", settings, edge, [router], {}))
    with running(app) as url:
        yield Served(url, held)


class Upload:
    """Sends a body in two parts."""

    def __init__(self, served: Served, path: str) -> None:
        url = urlsplit(served.url)
        self._socket = socket.create_connection((url.hostname or "", url.port or 0), 20)
        self._socket.sendall(
            f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n".encode()
        )
        before = served.held.count
        self._socket.sendall(b"x" * (LARGE - 1))
        # What the system's buffers hold is not here yet: most of it is enough.
        eventually(lambda: served.held.count > before + LARGE // 2)

    def finish(self) -> bytes:
        """Send the rest; return the answer."""
        self._socket.sendall(b"x")
        answer = b""
        while part := self._socket.recv(65_536):
            answer += part
        self._socket.close()
        return answer

    def hang_up(self) -> None:
        self._socket.close()


PATHS = pytest.mark.parametrize("path", ["/raw", "/web"])


@PATHS
def test_what_all_bodies_together_may_take_is_bounded(served: Served, path: str) -> None:
    slow = Upload(served, path)

    refused = httpx.post(served.url + path, content=b"x" * LARGE)
    small = httpx.post(served.url + path, content=b"x" * FREE_BYTES)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert f"{MOST} bytes" in refused.json()["detail"]
    assert small.text == str(FREE_BYTES)
    assert slow.finish().endswith(b"%d" % LARGE)
    assert httpx.post(served.url + path, content=b"x" * LARGE).text == str(LARGE)
    eventually(lambda: served.held.count == 0)


@PATHS
def test_who_hangs_up_makes_room(served: Served, path: str) -> None:
    Upload(served, path).hang_up()

    eventually(lambda: served.held.count == 0)
    assert httpx.post(served.url + path, content=b"x" * LARGE).text == str(LARGE)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"bug" + b"x" * LARGE, 500),
        (iter([b"x" * LARGE] * 2), 413),
        (iter([b"x" * MOST, b"x" * FREE_BYTES, b"x"]), 429),
    ],
    ids=["a bug", "too large", "more than there is room for"],
)
def test_what_is_refused_makes_room(served: Served, content: bytes, status: int) -> None:
    assert httpx.post(f"{served.url}/raw", content=content).status_code == status

    eventually(lambda: served.held.count == 0)


def test_what_finds_no_room_is_not_counted() -> None:
    held = HeldBytes(10)

    with held.holding(FREE_BYTES + 6):
        share = held.share()
        with pytest.raises(Overloaded, match="10 bytes"):
            share.grow(FREE_BYTES + 5)
        assert held.count == 6
        share.close()

    assert held.count == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 80_000)), max_size=40))
def test_shares_add_up_to_what_is_held(steps: list[tuple[int, bool, int]]) -> None:
    held = HeldBytes(10**9)
    shares, sizes = [held.share() for _ in range(4)], [0] * 4
    for place, more, count in steps:
        (shares[place].grow if more else shares[place].shrink)(count)
        sizes[place] = sizes[place] + count if more else max(0, sizes[place] - count)
        assert held.count == sum(max(0, size - FREE_BYTES) for size in sizes)

    for share in shares:
        share.close()
        share.close()
    assert held.count == 0


class Part(bytearray):
    """Bytes that can be looked after."""


@pytest.mark.parametrize("most", [10**6, 100_000], ids=["too large", "no room"])
def test_a_refused_body_does_not_stay_in_memory(most: int) -> None:
    """Nobody calls the collector of cycles for it: a server with much to do seldom does."""
    parts: list[weakref.ref[Part]] = []

    async def receive() -> dict[str, Any]:
        parts.append(weakref.ref(part := Part(50_000)))
        return {"type": "http.request", "body": part, "more_body": True}

    async def refused() -> None:
        body = BoundedBody(receive, 400_000, HeldBytes(most))
        with contextlib.suppress(ModelyardError):
            await read_body(body)
        body.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(refused())
        assert len(parts) > 1
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()
