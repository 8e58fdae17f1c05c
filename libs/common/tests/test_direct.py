"""Connections that answer raw routes themselves: the same bytes, order, ids, bounds and counts as by a task."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from modelyard_common import context
from modelyard_common.app import create_app
from modelyard_common.auth.tokens import hash_token
from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import running


@dataclass
class Route:
    """Answers what it is asked: soon, a turn later, or by a coroutine; notes which, and under which request id."""

    ways: list[str] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    left: list[str | None] = field(default_factory=list)

    def soon(self, request: RawRequest, done: Callable[[RawAnswer], None]) -> bool:
        if b"coroutine" in request.body:
            return False
        self.ways.append("soon")
        self.ids.append(context.request_id.get())
        answer = RawAnswer(b"soon:" + request.body, b"text/plain", 418 if request.body == b"teapot" else 200)
        if b"later" in request.body or b"never" in request.body:
            wait_s = 0.02 if b"later" in request.body else 3600
            timer = asyncio.get_running_loop().call_later(wait_s, done, answer)
            if request.caller is not None:
                request.caller.left = lambda: (timer.cancel(), self.left.append(context.request_id.get()))[1]
        else:
            done(answer)
        return True

    async def answer(self, request: RawRequest) -> RawAnswer:
        self.ways.append("coroutine")
        self.ids.append(context.request_id.get())
        await asyncio.sleep(0)
        return RawAnswer(b"coroutine:" + request.body[:20], b"text/plain")


@dataclass
class Server:
    url: str
    route: Route

    @property
    def address(self) -> tuple[str, int]:
        place = urlsplit(self.url)
        return place.hostname or "", place.port or 0

    def converse(self, sent: bytes, answers: int) -> bytes:
        """Return what comes back for bytes that are sent at once, until so many answers are there or it hangs up."""
        with socket.create_connection(self.address, timeout=10) as caller:
            caller.sendall(sent)
            heard = b""
            while heard.count(b"HTTP/1.1 ") < answers or not heard.endswith(b"."):
                part = caller.recv(65_536)
                heard += part
                if not part:
                    break
            return heard

    def metric(self, pattern: str) -> float:
        found = re.search(rf"^{pattern} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def serving(route: Route, **changes: object) -> Iterator[Server]:
    raw = RawRoute(lambda method, path: method == "POST" and path == "/raw", route.answer, "/raw", route.soon)
    settings = ServiceSettings(max_body_bytes=100_000, **changes)  # type: ignore[arg-type]  # of a test's choosing
    with running(create_app(service="direct", settings=settings, routers=[], health=Health(), raw_routes=[raw])) as url:
        yield Server(url, route)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Route()) as one:
        yield one


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def post(body: bytes, *heads: str, version: str = "1.1") -> bytes:
    head = "\r\n".join([f"POST /raw HTTP/{version}", "host: x", f"content-length: {len(body)}", *heads])
    return head.encode() + b"\r\n\r\n" + body


def test_a_small_request_is_answered_without_a_task(server: Server) -> None:
    answer = httpx.post(f"{server.url}/raw", content=b"a", headers={"x-request-id": "r-1"})

    assert (answer.text, answer.headers["content-type"]) == ("soon:a", "text/plain")
    assert answer.headers["x-request-id"] == "r-1"
    assert "date" in answer.headers
    assert (server.route.ways, server.route.ids) == (["soon"], ["r-1"])


def test_what_the_route_leaves_to_a_coroutine_gets_the_same_request_id(server: Server) -> None:
    answer = httpx.post(f"{server.url}/raw", content=b"coroutine", headers={"x-request-id": "r-2"})

    assert answer.text == "coroutine:coroutine"
    assert server.route.ids == ["r-2"]


@pytest.mark.parametrize(
    ("content", "heads"),
    [
        (b"x" * 50_000, {}),
        (iter([b"a", b"b"]), {}),
        (b"ab", {"expect": "100-continue"}),
    ],
    ids=["large", "chunked", "asks first"],
)
def test_what_may_come_in_parts_is_left_to_a_coroutine(server: Server, content: bytes, heads: dict[str, str]) -> None:
    assert httpx.post(f"{server.url}/raw", content=content, headers=heads).text.startswith("coroutine:")


def test_a_body_that_comes_after_its_head_is_answered_when_it_is_there(server: Server) -> None:
    with socket.create_connection(server.address, timeout=10) as caller:
        whole = post(b"abc.")
        for part in (whole[:20], whole[20:-2], whole[-2:]):
            caller.sendall(part)
            time.sleep(0.02)  # apart on the wire; nothing is asserted about how long it takes
        assert caller.recv(65_536).endswith(b"soon:abc.")


def test_requests_sent_at_once_are_answered_in_their_order(server: Server) -> None:
    bodies = [b"a.", b"later.", b"coroutine.", b"b.", b"later again.", b"c."]

    heard = server.converse(b"".join(map(post, bodies)), len(bodies))

    assert re.findall(rb"(?:soon|coroutine):([a-z ]+\.)", heard) == bodies


def test_a_connection_without_keep_alive_is_closed_after_its_answer(server: Server) -> None:
    for request in (post(b"a.", "connection: close"), post(b"a.", version="1.0")):
        heard = server.converse(request, 2)
        assert heard.count(b"HTTP/1.1 200 ") == 1
        assert b"connection: close\r\n" in heard


def test_a_caller_that_hangs_up_before_its_answer_harms_nobody(server: Server) -> None:
    with socket.create_connection(server.address, timeout=10) as caller:
        caller.sendall(post(b"later."))
    assert httpx.post(f"{server.url}/raw", content=b"a").text == "soon:a"
    assert httpx.post(f"{server.url}/raw", content=b"later").text == "soon:later"
    assert server.metric(r'modelyard_http_requests_in_flight\{service="direct"\}') == 1  # this look itself


@pytest.mark.parametrize("known", [False, True], ids=["new head", "known head"])
def test_who_hangs_up_before_an_answer_that_comes_later_leaves_once_and_is_counted(server: Server, known: bool) -> None:
    gone = r'modelyard_http_requests_total\{method="POST",route="/raw",service="direct",status="499"\}'
    before = server.metric(gone)
    with socket.create_connection(server.address, timeout=10) as caller:
        if known:
            for _ in range(2):
                caller.sendall(post(b"later", "x-other: one"))
                assert caller.recv(65_536).endswith(b"soon:later")
        asked = len(server.route.ways)
        caller.sendall(post(b"never", "x-other: one"))
        eventually(lambda: len(server.route.ways) == asked + 1)

    eventually(lambda: server.metric(gone) == before + 1)
    eventually(lambda: server.metric(r'modelyard_http_requests_in_flight\{service="direct"\}') == 1)
    assert len(server.route.left) == 1
    assert server.route.left[0]


def test_answers_are_counted_by_their_status(server: Server) -> None:
    total = r'modelyard_http_requests_total\{method="POST",route="/raw",service="direct",status="%d"\}'
    counted = [total % status for status in (200, 418)]
    before = [server.metric(one) for one in counted]

    for body in (b"a", b"b", b"teapot"):
        httpx.post(f"{server.url}/raw", content=body)

    assert [server.metric(one) - was for one, was in zip(counted, before, strict=True)] == [2, 1]


def test_nobody_is_answered_without_a_known_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"someone client {hash_token('t-1')}\n")

    with serving(Route(), auth="token", tokens_file=tmp_path / "tokens") as server:
        refused = httpx.post(f"{server.url}/raw", content=b"a")
        taken = httpx.post(f"{server.url}/raw", content=b"a", headers={"authorization": "Bearer t-1"})

    assert (refused.status_code, refused.headers["www-authenticate"], taken.text) == (401, "Bearer", "soon:a")
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_many_connections_at_once_each_get_their_own_answers(server: Server) -> None:
    wrong: list[bytes] = []

    def talk(number: int) -> None:
        bodies = [b"%s %d.." % (b"later" if (number + turn) % 3 else b"x", number * 100 + turn) for turn in range(20)]
        heard = server.converse(b"".join(map(post, bodies)), len(bodies))
        if re.findall(rb"soon:([a-z0-9 ]+\.\.)", heard) != bodies:
            wrong.append(heard)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert wrong == []
