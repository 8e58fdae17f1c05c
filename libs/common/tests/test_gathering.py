"""What one turn brings is answered together: the same answers as apart, each to its own, and nobody waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from modelyard_common import metrics
from modelyard_common.app import create_app
from modelyard_common.auth.tokens import hash_token
from modelyard_common.awake import Awake
from modelyard_common.connections import ConnectionBounds
from modelyard_common.direct import DirectProtocol, Learned
from modelyard_common.gathering import Gathering
from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.settings import ServiceSettings
from test_known_heads import Wire, on_a_loop, settled
from uvicorn.server import ServerState

_HEAD = rb"HTTP/1.1 (\d+) .*?\r\n.*?content-length: (\d+)\r\n.*?x-request-id: (\w+)\r\n(?:[^\r]+\r\n)*\r\n"
_ANSWER = re.compile(_HEAD, re.DOTALL)


@dataclass
class Route:
    """Answers with the body in capitals, and notes which were answered together; leaves some to be asked alone."""

    together: list[list[bytes]] = field(default_factory=list)
    alone: list[bytes] = field(default_factory=list)

    def hand_over(
        self, prepared: Any, views: Sequence[memoryview], arrived: float, done: Callable[[Sequence[RawAnswer]], None]
    ) -> bool:
        del prepared, arrived
        bodies = [bytes(view) for view in views]
        if b"bad-x" in bodies:
            raise RuntimeError("nobody foresaw it")
        if any(body.startswith((b"odd", b"slo")) for body in bodies):
            return False
        self.together.append(list(bodies))
        done([RawAnswer(body.upper(), b"text/plain") for body in bodies])
        return True

    def soon(self, request: RawRequest, done: Callable[[RawAnswer], None]) -> bool:
        if request.body.startswith(b"slo"):
            return False
        self.alone.append(request.body)
        done(RawAnswer(request.body.upper(), b"text/plain"))
        return True

    async def answer(self, request: RawRequest) -> RawAnswer:
        self.alone.append(request.body)
        return RawAnswer(request.body.upper(), b"text/plain")


@dataclass
class Line:
    """One connection."""

    protocol: DirectProtocol
    wire: Wire

    def say(self, body: bytes, *heads: str, path: str = "/raw/a") -> None:
        assert len(body) == 5  # the length is part of a head, and heads have to be known
        head = "\r\n".join([f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *heads])
        self.protocol.data_received(head.encode() + b"\r\n\r\n" + body)

    @property
    def heard(self) -> list[tuple[int, bytes]]:
        """The answers so far: status and body."""
        found = []
        for match in _ANSWER.finditer(self.wire.written):
            found.append((int(match[1]), self.wire.written[match.end() : match.end() + int(match[2])]))
        return found

    @property
    def request_ids(self) -> list[bytes]:
        return [match[3] for match in _ANSWER.finditer(self.wire.written)]


@dataclass
class House:
    """A server's shared parts; whoever is connected to it."""

    route: Route
    connect: Callable[[], Line]

    def crowd(self, count: int) -> list[Line]:
        """Return connections whose heads are known, the turn before having brought several."""
        lines = [self.connect() for _ in range(count)]
        for line in lines:
            line.say(b"learn")
        return lines


async def gathered(lines: Sequence[Line]) -> None:
    """Let a turn pass in which several ask, so that in the next one nobody seems to come alone."""
    for line in lines:
        line.say(b"learn")
    await settled()
    for line in lines:
        line.wire.written = b""


@contextmanager
def house(**changes: Any) -> Iterator[House]:
    route = Route()
    raw = RawRoute(
        lambda method, path: method == "POST" and path.startswith("/raw/"),
        route.answer,
        "/raw/{which}",
        route.soon,
        lambda path, headers: path,
        route.hand_over,
        lambda path: None if path == "/raw/lonely" else path,
    )
    settings = ServiceSettings(max_body_bytes=100_000, **changes)
    app = create_app(service="gathering", settings=settings, routers=[], health=Health(), raw_routes=[raw])
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=5)
    config.load()
    edge = app.state.edge
    make = partial(
        DirectProtocol,
        config,
        ServerState(),
        {},
        bounds=ConnectionBounds(60, 100),
        edge=edge,
        learned=Learned(),
        gathering=Gathering(edge),
        awake=Awake(0),
    )

    def connect() -> Line:
        protocol, wire = make(), Wire()
        protocol.connection_made(wire)
        return Line(protocol, wire)

    yield House(route, connect)


def in_flight() -> float:
    (found,) = [
        sample.value
        for family in metrics.IN_FLIGHT.collect()
        for sample in family.samples
        if sample.labels["service"] == "gathering"
    ]
    return found


def counted(status: int) -> float:
    labels = {"service": "gathering", "method": "POST", "route": "/raw/{which}", "status": str(status)}
    return sum(
        sample.value
        for family in metrics.REQUESTS.collect()
        for sample in family.samples
        if sample.labels == labels and sample.name.endswith("_total")
    )


@on_a_loop
async def test_who_comes_alone_is_answered_at_once() -> None:
    with house() as its:
        [line] = its.crowd(1)
        await settled()
        line.wire.written = b""
        line.say(b"alone")
        assert line.heard == [(200, b"ALONE")]  # before anything else runs
        assert its.route.together[-1] == [b"alone"]


@on_a_loop
async def test_a_turn_is_answered_together_and_each_gets_its_own() -> None:
    with house() as its:
        lines = its.crowd(5)
        await settled()
        await gathered(lines)
        before = counted(200)
        for place, line in enumerate(lines):
            line.say(b"row-%d" % place)
        assert [line.heard for line in lines] == [[]] * 5  # the turn is not over
        await settled()
        assert [line.heard for line in lines] == [[(200, b"ROW-%d" % place)] for place in range(5)]
        assert its.route.together[-1] == [b"row-%d" % place for place in range(5)]
        ids = [request_id for line in lines for request_id in line.request_ids]
        assert len(set(ids)) == 5
        assert all(re.fullmatch(rb"[0-9a-f]{16}", one) for one in ids)
        assert counted(200) - before == 5
        assert in_flight() == 0


@on_a_loop
async def test_one_that_is_odd_leaves_all_to_be_asked_alone() -> None:
    with house() as its:
        lines = its.crowd(4)
        await settled()
        await gathered(lines)
        its.route.alone.clear()
        for line, body in zip(lines, (b"row-a", b"odd-b", b"slo-c", b"row-d"), strict=True):
            line.say(body)
        for _ in range(20):
            await settled()
        assert [line.heard for line in lines] == [[(200, body)] for body in (b"ROW-A", b"ODD-B", b"SLO-C", b"ROW-D")]
        assert sorted(its.route.alone) == [b"odd-b", b"row-a", b"row-d", b"slo-c"]
        assert in_flight() == 0


@on_a_loop
async def test_only_kin_are_answered_together() -> None:
    with house() as its:
        lines = its.crowd(4)
        await settled()
        for line in lines[2:]:
            line.say(b"learn", path="/raw/b")
        lines[0].say(b"learn", path="/raw/lonely")
        await settled()
        await gathered(lines)
        its.route.together.clear()
        its.route.alone.clear()
        for line, path in zip(lines, ("/raw/lonely", "/raw/a", "/raw/b", "/raw/b"), strict=True):
            line.say(path[-5:].encode(), path=path)
        await settled()
        assert its.route.alone == [b"onely"]
        assert sorted(its.route.together) == [[b"raw/a"], [b"raw/b", b"raw/b"]]
        assert [line.heard for line in lines] == [[(200, body)] for body in (b"ONELY", b"RAW/A", b"RAW/B", b"RAW/B")]


@on_a_loop
async def test_who_may_not_ask_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"someone client {hash_token('t-1')}\nother client {hash_token('t-2')}\n")
    with house(auth="token", tokens_file=tokens) as its:
        lines = [its.connect() for _ in range(4)]
        heads = [f"authorization: Bearer t-{number}" for number in (1, 2, 3, 1)]
        for _ in range(3):
            for line, head in zip(lines, heads, strict=True):
                line.wire.written = b""
                line.say(b"row-x", head)
            await settled()
        assert [line.heard[0][0] for line in lines] == [200, 200, 401, 200]
        assert its.route.alone[-3:] == [b"row-x"] * 3  # it was not known whose fault it is
        for line, head in zip(lines[:2], heads, strict=False):
            line.say(b"row-y", head)
        await settled()
        assert its.route.together[-1] == [b"row-y"] * 2  # two callers, one answer's work


@on_a_loop
async def test_who_has_hung_up_meanwhile_is_passed_over() -> None:
    with house() as its:
        lines = its.crowd(3)
        await settled()
        await gathered(lines)
        for line in lines:
            line.say(b"row-x")
        lines[1].wire.is_closed = True
        await settled()
        assert [line.heard for line in lines] == [[(200, b"ROW-X")], [], [(200, b"ROW-X")]]


@on_a_loop
async def test_what_came_behind_a_gathered_request_is_answered_after_it() -> None:
    with house() as its:
        lines = its.crowd(2)
        await settled()
        await gathered(lines)
        for line in lines:
            line.say(b"first")
            line.say(b"then2")
        assert all(line.wire.is_paused for line in lines)
        for _ in range(3):
            await settled()
        assert [line.heard for line in lines] == [[(200, b"FIRST"), (200, b"THEN2")]] * 2
        assert not any(line.wire.is_paused for line in lines)


@on_a_loop
async def test_what_came_behind_a_request_that_is_left_to_the_parser_is_not_lost() -> None:
    with house() as its:
        lines = its.crowd(2)
        await settled()
        await gathered(lines)
        for line in lines:
            line.say(b"slo-1")
            line.say(b"slo-2")
        for _ in range(20):
            await settled()
        assert [line.heard for line in lines] == [[(200, b"SLO-1"), (200, b"SLO-2")]] * 2


@on_a_loop
async def test_an_answer_that_cannot_be_sent_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with house() as its:
        lines = its.crowd(3)
        await settled()
        await gathered(lines)
        aborted: list[bool] = []

        def breaks(data: bytes) -> None:
            raise RuntimeError("the wire is cut")

        monkeypatch.setattr(lines[1].wire, "write", breaks)
        monkeypatch.setattr(lines[1].wire, "abort", lambda: aborted.append(True), raising=False)
        for line in lines:
            line.say(b"row-x")
        await settled()
        assert [line.heard for line in lines] == [[(200, b"ROW-X")], [], [(200, b"ROW-X")]]
        assert aborted == [True]


@on_a_loop
async def test_kin_that_break_leave_others_of_their_turn_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with house() as its:
        lines = its.crowd(4)
        await settled()
        for line in lines[2:]:
            line.say(b"learn", path="/raw/b")
        await settled()
        await gathered(lines)
        aborted: list[Line] = []
        for line in lines:
            monkeypatch.setattr(line.wire, "abort", partial(aborted.append, line), raising=False)
        for line, body in zip(lines, (b"bad-x", b"bad-x", b"row-x", b"row-x"), strict=True):
            line.say(body, path="/raw/a" if body == b"bad-x" else "/raw/b")
        await settled()
        assert [line.heard for line in lines] == [[], [], [(200, b"ROW-X")], [(200, b"ROW-X")]]
        assert [line.wire for line in aborted] == [line.wire for line in lines[:2]]
        assert in_flight() == 0


@on_a_loop
async def test_one_that_breaks_when_asked_alone_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with house() as its:
        lines = its.crowd(3)
        await settled()
        await gathered(lines)
        aborted: list[bool] = []

        def breaks(head: Any, data: bytes, start: int) -> None:
            raise RuntimeError("nobody foresaw it")

        monkeypatch.setattr(lines[0].protocol, "ask_alone", breaks)
        monkeypatch.setattr(lines[0].wire, "abort", lambda: aborted.append(True), raising=False)
        for line in lines:
            line.say(b"odd-x")
        await settled()
        assert [line.heard for line in lines] == [[], [(200, b"ODD-X")], [(200, b"ODD-X")]]
        assert aborted == [True]


@on_a_loop
@pytest.mark.parametrize("body", [b"row-x", b"odd-x", b"slo-x"])
async def test_who_is_told_to_hang_up_before_the_turn_is_over_does_so_behind_the_answer(body: bytes) -> None:
    with house() as its:
        lines = its.crowd(2)
        await settled()
        await gathered(lines)
        for line in lines:
            line.say(body)
            line.protocol.shutdown()
        for _ in range(10):
            await settled()
        assert [line.heard for line in lines] == [[(200, body.upper())]] * 2
        assert all(line.wire.is_closed for line in lines)
        assert all(b"connection: close" in line.wire.written for line in lines)
