"""Requests whose heads were read before: answered without the parser, and no otherwise than by it."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.app import create_app
from modelyard_common.auth.tokens import hash_token
from modelyard_common.awake import Awake
from modelyard_common.connections import ConnectionBounds
from modelyard_common.direct import DirectProtocol, Learned
from modelyard_common.gathering import Gathering
from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.settings import ServiceSettings
from uvicorn.server import ServerState


@dataclass
class Route:
    """Answers with the body: at once, or when it is told to; leaves some to a coroutine."""

    waiting: list[Callable[[], None]] = field(default_factory=list)
    prepared: int = 0
    heard: int = 0

    def prepare(self, path: str, headers: Any) -> str:
        self.prepared += 1
        return path

    def soon(self, request: RawRequest, done: Callable[[RawAnswer], None]) -> bool:
        self.heard += 1
        if request.body.startswith(b"task"):
            return False
        if request.body.startswith(b"break"):
            raise RuntimeError
        answer = RawAnswer(request.body, b"text/plain")
        if request.body.startswith(b"wait"):
            self.waiting.append(lambda: done(answer))
        else:
            done(answer)
        return True

    async def answer(self, request: RawRequest) -> RawAnswer:
        return RawAnswer(request.body, b"text/plain")

    def let_go(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class Wire:
    """The transport of a connection, and what was written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False
        self.is_paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    @property
    def bodies(self) -> list[bytes]:
        return re.findall(rb"HTTP/1.1 200 OK\r\n.*?\r\n\r\n(\w+\.)", self.written, re.DOTALL)


@dataclass
class Line:
    """A connection, its route and its server."""

    route: Route
    wire: Wire
    protocol: DirectProtocol
    state: ServerState
    learned: Learned

    def say(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)

    @property
    def knows(self) -> int:
        return len(self.learned.heads)


@contextmanager
def line(learned: Learned | None = None, awake: Awake | None = None, **changes: Any) -> Iterator[Line]:
    """Return a connection on the running loop."""
    route = Route()
    raw = RawRoute(
        lambda method, path: (method, path) == ("POST", "/raw"), route.answer, "/raw", route.soon, route.prepare
    )
    settings = ServiceSettings(max_body_bytes=100_000, **changes)
    app = create_app(service="heads", settings=settings, routers=[], health=Health(), raw_routes=[raw])
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=5)
    config.load()
    state, known = ServerState(), learned if learned is not None else Learned()
    bounds = ConnectionBounds(60, 10)
    attention = awake if awake is not None else Awake(50e-6)
    edge = app.state.edge
    protocol = DirectProtocol(
        config, state, {}, bounds=bounds, edge=edge, learned=known, gathering=Gathering(edge), awake=attention
    )
    wire = Wire()
    protocol.connection_made(wire)  # type: ignore[arg-type]  # what of a transport is used
    yield Line(route, wire, protocol, state, known)


def post(body: bytes, *heads: str) -> bytes:
    head = "\r\n".join(["POST /raw HTTP/1.1", "host: x", f"content-length: {len(body)}", *heads])
    return head.encode() + b"\r\n\r\n" + body


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return run


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@on_a_loop
async def test_a_head_that_was_read_once_is_not_read_again() -> None:
    with line() as one:
        one.say(post(b"a."), post(b"b."), post(b"c."))

    assert one.wire.bodies == [b"a.", b"b.", b"c."]
    assert (one.route.prepared, one.route.heard, one.knows) == (1, 3, 1)
    assert one.state.total_requests == 3
    assert len(set(re.findall(rb"x-request-id: (\w+)", one.wire.written))) == 3


@on_a_loop
async def test_connections_share_what_they_learn() -> None:
    learned = Learned()
    with line(learned) as one, line(learned) as other:
        one.say(post(b"a."))
        other.say(post(b"b."))

    assert (other.wire.bodies, other.route.prepared) == ([b"b."], 0)


class Watched(Awake):
    """Writes down what it hears."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heard: list[str] = []

    def asked(self) -> None:
        self.heard.append("asked")

    def answered(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop is asyncio.get_running_loop()
        self.heard.append("answered")


@on_a_loop
async def test_the_event_loop_hears_of_each_known_request_and_of_its_answer() -> None:
    awake = Watched()
    with line(awake=awake) as one:
        one.say(post(b"a."), post(b"wait0."))
        one.route.let_go()
        assert one.knows == 2
        one.say(post(b"b."), post(b"wait1."))
        waits = list(awake.heard)
        one.route.let_go()

    assert waits == ["asked", "answered", "asked"]
    assert awake.heard == [*waits, "answered"]


BODIES = st.lists(st.sampled_from([b"a.", b"b.", b"wait1.", b"wait2.", b"task1.", b"task2.", b"longer."]), max_size=12)


@given(BODIES, st.lists(st.integers(1, 400), max_size=40))
def test_however_a_stream_is_cut_its_answers_are_those_of_the_parser_in_their_order(
    bodies: list[bytes], cuts: list[int]
) -> None:
    async def answers() -> list[bytes]:
        with line() as one:
            one.say(post(b"a."), post(b"wait0."))
            one.route.let_go()
            rest = b"".join(map(post, bodies))
            for cut in cuts:
                one.say(rest[:cut])
                rest = rest[cut:]
                if cut % 3 == 0:
                    await settled()
                    one.route.let_go()
            one.say(rest)
            for _ in bodies:
                await settled()
                one.route.let_go()
            await settled()
            return one.wire.bodies

    assert asyncio.run(answers()) == [b"a.", b"wait0.", *bodies]


@on_a_loop
async def test_what_comes_behind_a_request_that_is_being_answered_waits_and_is_not_read() -> None:
    with line() as one:
        one.say(post(b"wait1."))
        one.route.let_go()
        one.say(post(b"wait2."), post(b"wait3."), post(b"wait4."))
        before = (one.wire.bodies, one.wire.is_paused, one.protocol.expendable[0])
        one.route.let_go()
        await settled()
        one.route.let_go()

    assert before == ([b"wait1."], True, 0)
    assert one.wire.bodies == [b"wait1.", b"wait2.", b"wait3.", b"wait4."]
    assert not one.wire.is_paused


@given(st.lists(st.integers(1, 200), max_size=30))
def test_a_known_head_that_offers_another_protocol_means_its_body_too(cuts: list[int]) -> None:
    smuggled = b"POST /raw HTTP/1.1\r\ncontent-length: 2\r\n\r\nb."

    async def answers() -> bytes:
        with line() as one:
            one.say(*[post(smuggled, "connection: Upgrade", "upgrade: h2c") + post(b"a.")] * 2)
            one.say(*[post(smuggled, "connection: Upgrade", "upgrade: h2c")] * 2)
            rest = (post(smuggled, "connection: Upgrade", "upgrade: h2c") + post(b"a.")) * 3
            for cut in cuts:
                one.say(rest[:cut])
                rest = rest[cut:]
            one.say(rest)
            await settled()
            return one.wire.written

    found = [one.partition(b"\r\n\r\n")[2] for one in asyncio.run(answers()).split(b"HTTP/1.1 200 OK\r\n")[1:]]

    assert found == [smuggled, b"a."] * 2 + [smuggled] * 2 + [smuggled, b"a."] * 3


@on_a_loop
async def test_a_route_that_breaks_is_answered_for_and_leaves_nothing_in_flight() -> None:
    with line() as one:
        one.say(post(b"a.break"), post(b"breaks."), post(b"breaks."), post(b"seven4."))

        assert one.protocol._edge._in_flight == 0

    assert re.findall(rb"HTTP/1.1 (\d+)", one.wire.written) == [b"200", b"500", b"500", b"200"]
    assert not one.wire.is_closed


@pytest.mark.parametrize(
    ("path", "length", "status"), [("/raw", 100_001, b"413"), ("/raw", 9, b"200"), ("/nothing", 9, b"404")], ids=str
)
@on_a_loop
async def test_whoever_waits_to_send_a_body_that_nobody_asks_for_is_hung_up_on(
    path: str, length: int, status: bytes
) -> None:
    with line() as one:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        one.say(head.encode())
        async with asyncio.timeout(20):
            while not (one.wire.is_closed or one.wire.written):  # noqa: ASYNC110  # what is written sets no event
                await asyncio.sleep(0.001)  # a thread of the framework's answers
        asked = not one.wire.is_closed
        if asked:
            one.say(b"waited  .")
            await settled()

    assert re.findall(rb"HTTP/1.1 ([2-5]\d\d)", one.wire.written) == [status]
    assert asked == (status == b"200") == (not one.wire.is_closed)
    assert (b"connection: close\r\n" in one.wire.written) == one.wire.is_closed


@pytest.mark.parametrize("name", ["x-request-id", "traceparent"])
@on_a_loop
async def test_heads_that_are_another_each_time_are_not_kept(name: str) -> None:
    with line() as one:
        one.say(post(b"a.", f"{name}: 1"), post(b"b.", f"{name}: 2"))

    assert (one.wire.bodies, one.knows) == ([b"a.", b"b."], 0)


@pytest.mark.parametrize(
    "heads", [("connection: close",), ("expect: 100-continue",), (f"padding: {'x' * 3000}",)], ids=str
)
@on_a_loop
async def test_heads_of_another_kind_are_not_kept(heads: tuple[str, ...]) -> None:
    with line() as one:
        one.say(post(b"a.", *heads))
        await settled()

    assert one.wire.bodies == [b"a."]
    assert one.knows == 0


@on_a_loop
async def test_of_too_many_heads_the_oldest_go() -> None:
    with line() as one:
        for number in range(600):
            one.say(post(b"a.", f"number: {number}"))

        assert one.knows == 512
        prepared = one.route.prepared
        one.say(post(b"a.", "number: 599"))
        assert one.route.prepared == prepared
        one.say(post(b"a.", "number: 0"))
        assert one.route.prepared == prepared + 1


@on_a_loop
async def test_a_known_head_does_not_let_in_whoever_is_no_longer_known(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"someone client {hash_token('t-1')}\n")
    learned = Learned()
    with line(learned, auth="token", tokens_file=tokens) as one:
        one.say(post(b"a.", "authorization: Bearer t-1"), post(b"b.", "authorization: Bearer t-1"))
    tokens.write_text(f"someone client {hash_token('t-2')}\n")
    with line(learned, auth="token", tokens_file=tokens) as other:
        other.say(post(b"c.", "authorization: Bearer t-1"))

    assert one.wire.bodies == [b"a.", b"b."]
    assert (other.wire.bodies, other.route.prepared) == ([], 0)
    assert other.wire.written.startswith(b"HTTP/1.1 401 ")


@on_a_loop
async def test_a_body_beyond_the_bound_is_refused_also_behind_a_known_head() -> None:
    learned = Learned()
    with line(learned) as one:
        one.say(post(b"x" * 200 + b"."))
    with line(learned) as other:
        other.protocol._edge._max_body_bytes = 100
        other.say(post(b"x" * 200 + b"."))

    assert other.wire.written.startswith(b"HTTP/1.1 413 ")


@on_a_loop
async def test_a_shutdown_lets_the_answer_out_and_hangs_up() -> None:
    with line() as one:
        one.say(post(b"a.", "k: 1"), post(b"b.", "k: 1"))
        one.say(post(b"wait1."))
        one.route.let_go()
        one.say(post(b"wait2."))
        one.protocol.shutdown()
        was_closed = one.wire.is_closed
        one.route.let_go()

    assert not was_closed
    assert one.wire.is_closed
    assert one.wire.bodies[-1] == b"wait2."
    assert one.wire.written.count(b"connection: close\r\n") == 1


@on_a_loop
async def test_a_server_that_drains_says_so_behind_a_known_head() -> None:
    with line() as one:
        one.say(post(b"a."))
        one.state.default_headers = [*one.state.default_headers, (b"connection", b"close")]
        one.say(post(b"b."))

    assert one.wire.bodies == [b"a.", b"b."]
    assert one.wire.is_closed


@on_a_loop
async def test_a_caller_who_has_gone_gets_no_answer_and_takes_no_place() -> None:
    with line() as one:
        one.say(post(b"wait1."))
        one.route.let_go()
        one.say(post(b"wait2."))
        one.wire.close()
        one.protocol.connection_lost(None)
        one.route.let_go()

    assert one.wire.bodies == [b"wait1."]
    assert one.protocol._edge._in_flight == 0


@on_a_loop
async def test_a_connection_on_which_nothing_is_asked_is_closed_after_the_keep_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with line() as one:
        one.say(post(b"a."), post(b"b."))
        now = one.protocol.loop.time()
        for after_s, is_closed in ((4.0, False), (6.0, True)):
            with monkeypatch.context() as later:
                later.setattr(one.protocol.loop, "time", lambda after_s=after_s: now + after_s)
                one.protocol.tick()
            assert one.wire.is_closed is is_closed
