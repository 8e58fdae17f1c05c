"""Callers that dribble or stay silent: each holds a connection for a bounded time, and nobody else waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from inference_fakes import a_platform, eventually
from inference_process import RATE, InferenceProcess, good_requests, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop

PATIENCE_S = 2.0
SLOW = 30
PLACES = 120
INFER = b"POST /v2/models/power/infer HTTP/1.1\r\nhost: x\r\n"
KINDS = {
    "silent": b"",
    "head": INFER,
    "body": INFER + b"content-length: 1000\r\n\r\n{",
    "chunks": INFER + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    "calm path": b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
    "no path": b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
}


class Dribbler:
    """A connection that sends the beginning of a request, and then a byte now and then; unless it stays silent."""

    def __init__(self, server: InferenceProcess, begin: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.socket.sendall(begin)
        self.socket.setblocking(False)
        self.answer = b""
        self._is_silent = not begin
        self._sent = time.monotonic()

    def is_open(self) -> bool:
        """Take what comes, send a byte when it is time, and return whether the server still holds on."""
        try:
            while part := self.socket.recv(65536):
                self.answer += part
            return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        if not self._is_silent and time.monotonic() > self._sent + 0.3:
            with suppress(OSError):
                self.socket.send(b"0")
            self._sent = time.monotonic()
        return True


@contextmanager
def dribblers(server: InferenceProcess, begin: bytes, count: int = SLOW) -> Iterator[list[Dribbler]]:
    with ExitStack() as stack:
        made = [Dribbler(server, begin) for _ in range(count)]
        for one in made:
            stack.enter_context(one.socket)
        yield made


@pytest.fixture(scope="module")
def server(bundles: tuple[Packed, Packed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    """Give a server with little patience and few places; no test changes it."""
    folder = tmp_path_factory.mktemp("slow")
    bounds = {"request_patience_s": PATIENCE_S, "max_connections": PLACES}
    with a_platform(folder / "fakes") as platform, processes(platform, bundles, folder, **bounds) as (one,):
        yield one


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_slow_callers_are_cut_off_and_nobody_else_waits_for_them(server: InferenceProcess) -> None:
    before = server.holds()
    held_s: dict[str, float] = {}
    answers: dict[str, set[bytes]] = {}
    with open_loop([server.url], good_requests(), rate=RATE) as load:
        load.wait_for(20)
        for kind, begin in KINDS.items():
            with dribblers(server, begin) as slow:
                began = time.monotonic()
                eventually(lambda slow=slow: sum(one.is_open() for one in slow) == 0, 30)
                held_s[kind] = time.monotonic() - began
                answers[kind] = {one.answer.split(b"\r\n")[0] for one in slow}
        load.wait_for(20)

    assert load.failures == []
    assert min(held_s.values()) > PATIENCE_S / 2
    assert answers == {
        "silent": {b""},
        "no path": {b"HTTP/1.1 404 Not Found"},
        **{kind: {b"HTTP/1.1 408 Request Timeout"} for kind in ("head", "body", "chunks", "calm path")},
    }
    assert eventually(lambda: server.holds().descriptors <= before.descriptors + SLOW)
    assert server.holds().memory_mib < before.memory_mib + 16
    assert "Traceback" not in server.log


@pytest.mark.timeout(200)
def test_more_slow_callers_than_there_are_places_take_none_from_those_who_ask(server: InferenceProcess) -> None:
    descriptors = server.process.num_fds()
    with open_loop([server.url], good_requests(), rate=RATE) as load:
        load.wait_for(20)
        with dribblers(server, INFER, 3 * PLACES) as slow:
            load.wait_for(round(RATE * PATIENCE_S))
            held = server.process.num_fds()
            refused = sum(one.answer.startswith(b"HTTP/1.1 503") for one in slow if not one.is_open())

    assert load.failures == []
    assert held < descriptors + PLACES + 20
    assert refused > 0


def test_a_head_without_end_is_refused(server: InferenceProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as caller:
        caller.sendall(INFER)
        answer = b""
        try:
            for number in range(100):
                caller.sendall(b"x-%d: " % number + b"y" * 4096 + b"\r\n")
        except OSError:
            pass
        try:
            answer = caller.recv(65536)
        except ConnectionResetError:
            answer = b"HTTP/1.1 431"  # the refusal was lost with what was not read any more

    assert answer.startswith(b"HTTP/1.1 431")
    assert 'modelyard_http_connections_ended_total{reason="head"} 1.0' in server.get("/metrics").text


def test_what_is_no_http_gets_a_400(server: InferenceProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as caller:
        caller.sendall(b"\x16\x03\x01 secret\r\n\r\n")
        answer = b"".join(iter(lambda: caller.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"secret" not in answer
    assert "secret" not in server.log
