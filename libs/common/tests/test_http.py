"""Outgoing calls: a deadline that holds, bounded retries, a breaker that opens and closes, errors of the tree."""

from __future__ import annotations

import contextvars
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from modelyard_common import context, errors
from modelyard_common.edge import problem_bytes
from modelyard_common.http import CircuitBreaker, HttpClient
from modelyard_common.identity import Identity
from modelyard_common.problems import error_from, problem_from, status_of
from modelyard_common.testing import FakeClock, free_port, running
from modelyard_common.tracing import configure_tracing, is_sampled, parse_traceparent, shutdown_tracing
from peer_app import Answer, Peer, problem

Calling = Callable[..., AbstractContextManager[HttpClient]]


class Stage:
    """One server for all tests; each puts its own peer on it."""

    def __init__(self) -> None:
        self.peer = Peer()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.peer(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Stage, str]]:
    stage = Stage()
    with running(stage) as url:
        yield stage, url


@pytest.fixture
def calling(stage: tuple[Stage, str]) -> Calling:
    @contextmanager
    def calling(peer: Peer, **options: Any) -> Iterator[HttpClient]:
        stage[0].peer = peer
        client = HttpClient(stage[1], service="peer", **options)
        try:
            yield client
        finally:
            client.close()

    return calling


def test_an_answer_comes_back_as_it_was_sent(calling: Calling) -> None:
    peer = Peer(Answer(201, b'{"a": 1}', {"x-thing": "1"}))
    with calling(peer) as client:
        response = client.request("POST", "/v1/things", params={"q": "ä", "left_out": None}, json={"b": 2})

    assert (response.status_code, response.json(), response.headers["x-thing"]) == (201, {"a": 1}, "1")
    assert (peer.asked[0].path, peer.asked[0].query) == ("/v1/things", "q=%C3%A4")
    assert peer.asked[0].body == b'{"b":2}'


def test_not_modified_is_an_answer(calling: Calling) -> None:
    with calling(Peer(Answer(304, b""))) as client:
        assert client.request("GET", "/").status_code == 304


@pytest.mark.parametrize(
    "answer",
    [Answer(before_s=8), Answer(body=[b"x"] * 160, pause_s=0.05), Answer(before_s=0.2, status=503)],
    ids=["silent", "dripping", "unavailable"],
)
def test_the_deadline_holds_however_the_peer_is_slow(calling: Calling, answer: Answer) -> None:
    with calling(Peer(answer), retries=50) as client:
        began = time.monotonic()
        with pytest.raises(errors.Unavailable):
            client.request("GET", "/", timeout_s=0.4)

        assert time.monotonic() - began < 5


@pytest.fixture
def dripping() -> Iterator[str]:
    """Serve a peer that says the head of its answer letter by letter, and never ends."""
    over = threading.Event()

    def drip(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            caller.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not over.wait(0.05):
                caller.sendall(b"1")

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                threading.Thread(target=drip, args=(caller,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("how", ["request", "post_large", "stream"])
def test_the_deadline_holds_while_the_head_of_an_answer_drips(dripping: str, how: str) -> None:
    client = HttpClient(dripping, service="peer", timeout_s=0.5)
    began = time.monotonic()

    with closing(client), pytest.raises(errors.Unavailable, match="Timeout"):
        if how == "request":
            client.request("GET", "/")
        elif how == "post_large":
            client.post_large("/", (b"a", b"b"), {})
        else:
            with client.stream("GET", "/"):
                pass

    assert 0.4 < time.monotonic() - began < 5


def test_a_deadline_of_zero_is_a_deadline(calling: Calling) -> None:
    peer = Peer()
    with calling(peer) as client, pytest.raises(errors.Unavailable, match="within the deadline"):
        client.request("GET", "/", timeout_s=0.0)

    assert peer.asked == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_get_is_repeated_until_it_succeeds(calling: Calling, status: int) -> None:
    peer = Peer(problem(status), problem(status), Answer(200))
    with calling(peer) as client:
        assert client.request("GET", "/").status_code == 200

    assert len(peer.asked) == 3


def test_retries_are_bounded(calling: Calling) -> None:
    peer = Peer(problem(503, detail="away"))
    with calling(peer, retries=3) as client, pytest.raises(errors.Unavailable, match="away"):
        client.request("GET", "/")

    assert len(peer.asked) == 4


@pytest.mark.parametrize(
    ("method", "options", "calls"),
    [
        ("GET", {}, 3),
        ("PUT", {"json": {}}, 3),
        ("DELETE", {}, 3),
        ("POST", {"json": {}}, 1),
        ("PATCH", {"json": {}}, 1),
        ("POST", {"json": {}, "idempotency_key": "k"}, 3),
        ("POST", {"content": iter([b"x"]), "idempotency_key": "k"}, 1),
    ],
    ids=["GET", "PUT", "DELETE", "POST", "PATCH", "POST with a key", "a stream is sent once"],
)
def test_only_what_is_safe_to_repeat_is_repeated(
    calling: Calling, method: str, options: dict[str, Any], calls: int
) -> None:
    peer = Peer(problem(503))
    with calling(peer) as client, pytest.raises(errors.Unavailable):
        client.request(method, "/", **options)

    assert len(peer.asked) == calls


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_an_answer_that_will_not_change_is_not_asked_for_again(calling: Calling, status: int) -> None:
    peer = Peer(problem(status))
    with calling(peer) as client, pytest.raises(errors.ModelyardError):
        client.request("GET", "/")

    assert len(peer.asked) == 1


def test_every_attempt_carries_the_same_idempotency_key(calling: Calling) -> None:
    peer = Peer(problem(503), Answer())
    with calling(peer) as client:
        client.request("POST", "/", json={}, idempotency_key="d-1")

    assert [asked.headers["idempotency-key"] for asked in peer.asked] == ["d-1", "d-1"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthenticated),
        (403, errors.Denied),
        (404, errors.NotFound),
        (405, errors.Invalid),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (415, errors.Invalid),
        (418, errors.ModelyardError),
        (422, errors.Invalid),
        (429, errors.Overloaded),
        (500, errors.Unavailable),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
def test_a_problem_document_becomes_the_error_it_speaks_of(
    calling: Calling, status: int, kind: type[errors.ModelyardError]
) -> None:
    answer = problem(status, detail="because", errors=[{"path": "spec.task", "message": "is required"}])
    answer.headers = dict(answer.headers) | {"retry-after": "7"}
    with calling(Peer(answer), retries=0) as client, pytest.raises(errors.ModelyardError) as caught:
        client.request("GET", "/")

    assert type(caught.value) is kind
    assert caught.value.message == "because"
    assert caught.value.errors[0].path == "spec.task"
    if isinstance(caught.value, errors.Unavailable | errors.Overloaded):
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "body", [b'{"error_code": "BAD_REQUEST", "message": "load: is required"}', b'{"error": "load: is required"}']
)
def test_errors_of_the_inference_protocols_keep_what_they_say(calling: Calling, body: bytes) -> None:
    with calling(Peer(Answer(400, body))) as client, pytest.raises(errors.Invalid, match="load: is required"):
        client.request("POST", "/")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error_code": "X"}', b"\xff"])
def test_an_error_that_is_no_problem_document_keeps_its_status(calling: Calling, body: bytes) -> None:
    with calling(Peer(Answer(404, body))) as client, pytest.raises(errors.NotFound, match="Not Found"):
        client.request("GET", "/")


def test_a_status_in_the_body_does_not_hide_the_one_of_the_answer(calling: Calling) -> None:
    lying = Answer(503, b'{"title": "t", "status": 200}')
    with calling(Peer(lying), retries=0) as client, pytest.raises(errors.Unavailable):
        client.request("GET", "/")


def every_error() -> list[type[errors.ModelyardError]]:
    def below(kind: type[errors.ModelyardError]) -> Iterator[type[errors.ModelyardError]]:
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield child
                yield from below(child)

    return [kind for kind in below(errors.ModelyardError) if not kind.__name__.startswith("_")]


def test_an_error_can_be_written_whatever_text_is_in_it() -> None:
    error = errors.Invalid.at("a\ud800", "is no \udc80")

    assert problem_bytes(problem_from(error)).decode().count("a?: is no ?") == 1
    assert (error.message, error.errors[0].path) == ("a?: is no ?", "a?")


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_has_a_status_and_survives_the_wire(kind: type[errors.ModelyardError]) -> None:
    problem_document = problem_from(kind("a sentence"), request_id="r-1")
    back = error_from(problem_document)

    assert 400 <= status_of(kind()) < 600
    assert status_of(kind()) != 500
    assert (type(back), back.message) == (kind, "a sentence")
    assert problem_document.type == f"urn:modelyard:{kind.__name__.lower()}"
    assert problem_document.request_id == "r-1"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert {kind.__name__ for kind in every_error()} | {"ModelyardError"} == set(errors.__all__)
    for kind in every_error():
        assert kind.__name__ in (errors.__doc__ or "")


def test_an_error_of_a_service_has_the_status_of_its_nearest_parent() -> None:
    class QuotaReached(errors.Conflict):
        """There is no room."""

    assert status_of(QuotaReached()) == 409
    assert QuotaReached().message == "There is no room."
    assert status_of(errors.ModelyardError("bug")) == 500


def test_the_body_that_was_sent_is_let_go_without_a_look_for_cycles(calling: Calling) -> None:
    gc.disable()
    try:
        with calling(Peer(Answer(200, b"{}"))) as client:
            answer = client.request("POST", "/v1/things", content=b"a" * 1024)
            watched = weakref.ref(answer.request)  # which holds it
            assert answer.content == b"{}"
            del answer
            assert watched() is None
    finally:
        gc.enable()


def test_nobody_there_is_unavailable_and_names_the_peer() -> None:
    client = HttpClient(f"http://127.0.0.1:{free_port()}", service="registry")

    with pytest.raises(errors.Unavailable, match=r"registry at http://127\.0\.0\.1"):
        client.request("GET", "/")
    client.close()


def test_a_peer_that_is_down_is_left_alone_and_found_again() -> None:
    port = free_port()
    client = HttpClient(f"http://127.0.0.1:{port}", service="peer", retries=0)
    for _ in range(8):
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            client.request("GET", "/")

    with pytest.raises(errors.Unavailable, match="has not answered for a while"):
        client.request("GET", "/")
    client.close()


@pytest.mark.parametrize(
    "asked",
    [{"path": "/v1/models/\udc80"}, {"params": {"a": "\udc80"}}, {"headers": {"x": "\u00e9"}}],
    ids=["path", "query", "header"],
)
def test_what_cannot_be_sent_is_an_error_of_who_asks_and_says_nothing_about_the_peer(
    calling: Calling, asked: dict[str, Any]
) -> None:
    with calling(Peer(Answer(200, b"{}"))) as client:
        for _ in range(8):
            with pytest.raises(UnicodeEncodeError):
                client.request("GET", **{"path": "/", **asked})
        with pytest.raises(UnicodeEncodeError), client.stream("GET", **{"path": "/", **asked}):
            pass

        assert client.request("GET", "/").content == b"{}"


def test_an_answer_of_any_status_closes_the_breaker() -> None:
    breaker = CircuitBreaker(failures=2)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()

    assert breaker.allows()


def test_an_open_breaker_lets_one_caller_try_after_a_while() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(failures=2, open_s=1.0, monotonic=clock.monotonic)
    breaker.failed()
    breaker.failed()
    assert not breaker.allows()
    assert breaker.is_open

    clock.advance(1.0)

    assert not breaker.is_open
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    breaker.failed()
    clock.advance(1.0)
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_nobody_tries_while_another_waits_for_a_peer_that_hangs() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(failures=1, open_s=1.0, trial_s=10.0, monotonic=clock.monotonic)
    breaker.failed()

    clock.advance(1.0)
    assert breaker.allows()
    clock.advance(9.5)
    assert not breaker.allows()
    breaker.failed()
    clock.advance(1.0)
    assert breaker.allows()
    clock.advance(10.0)

    assert breaker.allows(), "whoever tried has told nothing, and is not waited for"
    assert not breaker.allows()


def in_request(call: Callable[[], object], **values: str) -> None:
    """Call within the context of a request."""

    def run() -> None:
        for name, value in values.items():
            getattr(context, name).set(value)
        call()

    contextvars.copy_context().run(run)


def test_the_request_and_its_trace_go_on_to_the_peer(calling: Calling) -> None:
    peer = Peer()
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    with calling(peer) as client:
        in_request(lambda: client.request("GET", "/"), request_id="r-1", traceparent=parent, tracestate="v=1")

    headers = peer.asked[0].headers
    assert headers["x-request-id"] == "r-1"
    # As it came: a span that nobody records must not become anybody's parent.
    assert (headers["traceparent"], headers["tracestate"]) == (parent, "v=1")


def test_a_request_without_a_trace_begins_one_for_all_that_it_asks_of_others(calling: Calling) -> None:
    peer = Peer()
    with calling(peer) as client:
        in_request(lambda: [client.request("GET", "/") for _ in range(2)], request_id="r-1")

    first, second = (parse_traceparent(one.headers["traceparent"]) for one in peer.asked)
    assert first == second is not None
    assert not is_sampled(first or "")


def test_outside_of_a_request_the_peer_decides_about_a_trace(calling: Calling) -> None:
    peer = Peer()
    with calling(peer) as client:
        client.request("GET", "/")

    assert not {"traceparent", "tracestate", "x-request-id"} & set(peer.asked[0].headers)


def test_what_a_service_does_by_itself_is_not_recorded_by_its_peers(calling: Calling) -> None:
    peer = Peer()
    configure_tracing(Identity("test"), endpoint=None)
    try:
        with calling(peer) as client:
            client.request("GET", "/")
    finally:
        shutdown_tracing()

    assert not is_sampled(parse_traceparent(peer.asked[0].headers["traceparent"]) or "")


def test_a_rotated_token_is_taken_with_the_next_call(calling: Calling, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    peer = Peer()
    with calling(peer, token_file=token) as client:
        client.request("GET", "/")
        token.write_text("second")
        client.request("GET", "/")

    assert [asked.headers["authorization"] for asked in peer.asked] == ["Bearer first", "Bearer second"]


def test_a_token_file_that_cannot_be_read_is_an_error_of_the_tree(calling: Calling, tmp_path: Path) -> None:
    with calling(Peer(), token_file=tmp_path / "gone") as client, pytest.raises(errors.Unauthenticated, match="gone"):
        client.request("GET", "/")


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", "schl\u00fcssel".encode(), b"\xff\xfe"])
def test_a_file_that_holds_no_token_is_said_to_and_its_content_is_not(
    calling: Calling, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    peer = Peer()
    with calling(peer, token_file=tmp_path / "token") as client, pytest.raises(errors.Unauthenticated) as caught:
        client.request("GET", "/")

    assert str(caught.value) == f"the token file {tmp_path / 'token'} does not hold one line of printable ASCII"
    assert not peer.asked


def test_the_environments_proxies_are_not_asked(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with calling(Peer()) as client:
        assert client.request("GET", "/").status_code == 200


def test_a_stream_is_read_as_it_comes(calling: Calling) -> None:
    with (
        calling(Peer(Answer(body=[b"a", b"b", b"c"], pause_s=0.02))) as client,
        client.stream("GET", "/", timeout_s=2) as response,
    ):
        assert list(response.iter_bytes()) == [b"a", b"b", b"c"]


def test_a_stream_may_take_longer_than_the_wait_for_a_piece(calling: Calling) -> None:
    with (
        calling(Peer(Answer(body=[b"a"] * 8, pause_s=0.5))) as client,
        client.stream("GET", "/", timeout_s=3) as response,
    ):
        assert b"".join(response.iter_bytes()) == b"a" * 8


def test_a_refused_stream_raises_what_the_problem_says(calling: Calling) -> None:
    with calling(Peer(problem(404))) as client, pytest.raises(errors.NotFound), client.stream("GET", "/"):
        pass


def test_a_stream_that_falls_silent_is_unavailable(calling: Calling) -> None:
    with (
        calling(Peer(Answer(body=[b"a", b"b"], pause_s=0.5))) as client,
        pytest.raises(errors.Unavailable),
        client.stream("GET", "/", timeout_s=0.2) as response,
    ):
        response.read()


def test_callers_do_not_wait_for_each_other(calling: Calling) -> None:
    peer = Peer(Answer(before_s=1))
    with calling(peer) as client:
        threads = [threading.Thread(target=client.request, args=("GET", "/")) for _ in range(8)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(peer.asked) == 8
    assert time.monotonic() - began < 6
