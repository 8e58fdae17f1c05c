"""Large bodies on a kept connection: parts in order, deadlines that hold, a peer that hangs up between two posts."""

from __future__ import annotations

import contextvars
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
from modelyard_common import context, errors
from modelyard_common.http import HttpClient
from modelyard_common.kept_line import KeptLine, NoAnswer, _Reading
from modelyard_common.testing import free_port, running
from peer_app import Answer, Peer, problem

Serving = Callable[[bytes], str]
PARTS = (b"head", b"x" * 3_000_000)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def posting(url: str, timeout_s: float = 5.0) -> Iterator[HttpClient]:
    with closing(HttpClient(url, service="peer", timeout_s=timeout_s)) as client:
        yield client


@contextmanager
def full_house() -> Iterator[tuple[str, int]]:
    """Give an address at which nobody who comes is let in: others wait there already."""
    with socket.socket() as full, closing(socket.socket()) as first, closing(socket.socket()) as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


def _line_of(client: HttpClient) -> KeptLine:
    assert client._line is not None
    return client._line


@pytest.fixture
def saying() -> Iterator[Serving]:
    """Serve a peer that says the same whatever it hears, once on each connection, and then hangs up."""
    listeners = []

    def make(words: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        heard = b""
                        while not heard.endswith(b"\r\n\r\nab"):
                            heard += connection.recv(65536)
                        connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_parts_arrive_as_one_body_and_the_answer_comes_back() -> None:
    peer = Peer(Answer(200, [b"an ", b"answer"]), Answer(202, b"another"))
    ports = set()
    with running(peer) as url, posting(url + "/base/") as client:
        assert client.post_large("/v1/events", PARTS, {"content-type": "application/x"}) == b"an answer"
        ports.add(_line_of(client)._sock.getsockname())
        assert client.post_large("/v1/events", (b"small",), {}) == b"another"
        ports.add(_line_of(client)._sock.getsockname())

    first, second = peer.asked
    assert (first.method, first.path, first.body) == ("POST", "/base/v1/events", b"".join(PARTS))
    assert first.headers["content-type"] == "application/x"
    assert first.headers["host"] == url.removeprefix("http://")
    assert second.body == b"small"
    assert len(ports) == 1


def test_what_belongs_to_a_request_goes_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("secret")
    peer = Peer()
    with running(peer) as url, closing(HttpClient(url, service="peer", token_file=token)) as client:
        here = contextvars.copy_context()
        here.run(context.request_id.set, "r-1")
        here.run(client.post_large, "/", PARTS, {})

    assert peer.asked[0].headers["authorization"] == "Bearer secret"
    assert peer.asked[0].headers["x-request-id"] == "r-1"


def test_credentials_of_the_address_are_sent_and_never_told() -> None:
    peer = Peer()
    with running(peer) as url, posting(url.replace("//", "//me:p%40ss@")) as client:
        client.post_large("/", PARTS, {})
    address = f"127.0.0.1:{free_port()}"
    with posting(f"http://me:hidden@{address}") as client, pytest.raises(errors.Unavailable) as away:
        client.post_large("/", PARTS, {})

    assert peer.asked[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert away.value.message == f"peer at http://{address} cannot be reached (ConnectionRefusedError)"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(422, errors=[{"path": "blocks[3]", "message": "is wrong"}]), errors.Invalid),
        (problem(413), errors.TooLarge),
        (problem(503), errors.Unavailable),
        (Answer(502, b"<html>"), errors.Unavailable),
        (Answer(302, b"", {"location": "/elsewhere"}), errors.ModelyardError),
    ],
)
def test_what_is_no_success_is_the_error_that_its_status_stands_for(answer: Answer, kind: type[Exception]) -> None:
    peer = Peer(answer)
    with running(peer) as url, posting(url) as client, pytest.raises(kind):
        client.post_large("/", PARTS, {})

    assert len(peer.asked) == 1


@pytest.mark.parametrize(
    "answer", [Answer(before_s=8), Answer(body=[b"x"] * 160, pause_s=0.05)], ids=["silent", "dripping"]
)
def test_the_deadline_holds_however_the_peer_is_slow(answer: Answer) -> None:
    with running(Peer(answer)) as url, posting(url, timeout_s=0.4) as client:
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="TimeoutError"):
            client.post_large("/", PARTS, {})

        assert time.monotonic() - began < 5


def test_the_deadline_holds_while_the_peer_does_not_read() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        posting(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.4) as client,
    ):
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="TimeoutError"):
            client.post_large("/", (b"x" * 30_000_000,), {})

        assert time.monotonic() - began < 5


def test_the_deadline_holds_while_another_has_the_line() -> None:
    peer = Peer(Answer(before_s=2, body=b"slow"))
    with running(peer) as url, posting(url, timeout_s=10) as client, ThreadPoolExecutor(1) as pool:
        other = pool.submit(client.post_large, "/", PARTS, {})
        while not _line_of(client)._turn.locked():
            time.sleep(0.01)
        client._timeout_s = 0.2
        began = time.monotonic()
        for _ in range(9):  # more than the breaker bears of what is the peer's fault
            with pytest.raises(errors.Unavailable, match="other posts to peer"):
                client.post_large("/", PARTS, {})

        assert time.monotonic() - began < 0.2 * 9 + 1
        assert other.result() == b"slow"
        client._timeout_s = 10
        assert client.post_large("/", PARTS, {}) == b"slow"


def test_the_deadline_holds_for_all_addresses_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house() as address:
        found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **named: [found] * 20)
        with posting("http://silent", timeout_s=0.3) as client:
            began = time.monotonic()
            with pytest.raises(errors.Unavailable, match="TimeoutError"):
                client.post_large("/", PARTS, {})

            assert time.monotonic() - began < 3


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer()
    with running(peer) as url, posting(url.replace("127.0.0.1", "two")) as client:
        port = int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", at)) for at in (free_port(), port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **named: found)
        client.post_large("/", PARTS, {})

    assert peer.asked[0].headers["host"] == f"two:{port}"


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("http://[::1]", "::1", 80),
        ("http://[fd00::abcd]:80/x", "fd00::abcd", 80),
        ("http://[::1]:8083", "::1", 8083),
        ("https://[2001:db8::1]", "2001:db8::1", 443),
        ("https://drift", "drift", 443),
        ("http://b\u00fccher.example:81", "xn--bcher-kva.example", 81),
    ],
)
def test_addresses_are_read_as_they_are_written(address: str, host: str, port: int) -> None:
    line = KeptLine(address)

    assert (line._host, line._port) == (host, port)


def test_a_peer_on_ipv6_is_reached() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no loopback of IPv6 here")
    with listener, posting(f"http://[::1]:{listener.getsockname()[1]}") as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post_large, "/", (b"ab",), {})
        connection, _ = listener.accept()
        with connection:
            assert b"host: [::1]:" in connection.recv(4096).lower()
            connection.sendall(OK)
            assert asked.result() == b"ok"


def test_after_an_answer_that_came_too_late_the_next_one_is_its_own() -> None:
    peer = Peer(Answer(before_s=0.6, body=b"late"), Answer(body=b"mine"))
    with running(peer) as url, posting(url, timeout_s=0.3) as client:
        with pytest.raises(errors.Unavailable):
            client.post_large("/", PARTS, {})
        time.sleep(0.5)

        assert client.post_large("/", PARTS, {}) == b"mine"


@pytest.mark.parametrize(
    "words",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
    ids=["length", "close", "chunks"],
)
def test_a_peer_that_has_hung_up_since_is_called_again(saying: Serving, words: bytes) -> None:
    with posting(saying(words)) as client:
        for _ in range(3):
            assert client.post_large("/", (b"a", b"b"), {}) == b"ok"
            time.sleep(0.05)


@pytest.mark.parametrize(
    "before",
    [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 3],
    ids=["hints", "continue"],
)
def test_what_comes_before_the_answer_is_passed_over(saying: Serving, before: bytes) -> None:
    with posting(saying(before + OK)) as client:
        assert client.post_large("/", (b"a", b"b"), {}) == b"ok"


@pytest.mark.parametrize("more", [OK, b"x", b"\r\n\r\nGET"], ids=["another answer", "a byte", "lines"])
def test_what_comes_behind_an_answer_is_nobodys(more: bytes) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
        posting(f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
    ):
        for content in (b"ok", b"so"):
            asked = pool.submit(client.post_large, "/", (b"ab",), {})
            connection, _ = listener.accept()  # each time another one
            with connection:
                assert connection.recv(4096).endswith(b"ab")
                connection.sendall(OK.replace(b"\r\n\r\nok", b"\r\n\r\n" + content) + more)
                assert asked.result() == content


def test_a_header_of_two_lines_is_not_sent() -> None:
    peer = Peer()
    with running(peer) as url, posting(url) as client:
        with pytest.raises(ValueError, match="more than one line"):
            client.post_large("/", PARTS, {"content-type": "a\r\nb: c"})

        assert client.post_large("/", PARTS, {}) is not None
    assert len(peer.asked) == 1


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx" * 9999,
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000000\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1024**2 + 1),
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
    ids=[
        "nothing",
        "another protocol",
        "cut off",
        "endless",
        "no such length",
        "length of all memory",
        "negative chunk",
        "huge chunk",
        "too long",
        "no answer yet",
    ],
)
def test_what_is_no_answer_is_unavailable(saying: Serving, words: bytes) -> None:
    with posting(saying(words)) as client, pytest.raises(errors.Unavailable, match="peer at http"):
        client.post_large("/", (b"a", b"b"), {})


def test_what_a_trailer_says_is_no_header(saying: Serving) -> None:
    head = b"HTTP/1.1 503 Away\r\ntransfer-encoding: chunked\r\nretry-after: 3\r\n\r\n"
    with posting(saying(head + b"0\r\nretry-after: 9\r\n\r\n")) as client, pytest.raises(errors.Unavailable) as away:
        client.post_large("/", (b"a", b"b"), {})

    assert away.value.retry_after_s == 3


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x-more: 1\r\n" * 200_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-more: " + b"1" * 2_200_000,
        b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["endless trailers", "an endless trailer", "no such status"],
)
def test_what_can_be_no_answer_is_not_waited_for(words: bytes) -> None:
    with closing(_Reading()) as reading, pytest.raises(NoAnswer):
        reading.take(words)


@pytest.mark.parametrize("host", ["drift..svc", "a" * 64 + ".svc"], ids=["empty label", "long label"])
def test_a_name_that_can_be_none_is_of_nobody(host: str) -> None:
    def opened(client: HttpClient) -> None:
        with client.stream("GET", "/"):
            pass

    asks: list[Callable[[HttpClient], object]] = [
        lambda client: client.post_large("/", PARTS, {}),
        lambda client: client.request("GET", "/"),
        opened,
    ]
    with posting(f"http://{host}:1") as client:
        for ask in asks:
            with pytest.raises(errors.Unavailable, match="cannot be reached"):
                ask(client)


def test_a_refusal_that_comes_before_the_body_was_read_is_what_it_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = proxy.accept()
                    connection.recv(200)
                    connection.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
                    connection.shutdown(socket.SHUT_WR)
                    held.append(connection)  # what came is not read: the rest of it meets a full window, or a reset
                    threading.Timer(0.2, connection.close).start()

        held: list[socket.socket] = []
        threading.Thread(target=refuse, daemon=True).start()
        with posting(f"http://127.0.0.1:{proxy.getsockname()[1]}") as client:
            for _ in range(5):
                with pytest.raises(errors.TooLarge):
                    client.post_large("/", (b"x" * 30_000_000,), {})
        proxy.shutdown(socket.SHUT_RDWR)


def test_closing_hangs_up_on_who_waits_and_is_for_good() -> None:
    with running(Peer(Answer(before_s=8))) as url, posting(url, timeout_s=20) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post_large, "/", PARTS, {})
        while not _line_of(client)._turn.locked():
            time.sleep(0.01)
        time.sleep(0.2)
        began = time.monotonic()
        client.close()

        assert time.monotonic() - began < 5
        with pytest.raises(errors.Unavailable):
            waiting.result()
        with pytest.raises(errors.Unavailable):
            client.post_large("/", PARTS, {})
        assert _line_of(client)._sock is None


def test_closing_hangs_up_on_who_still_connects() -> None:
    with full_house() as (host, port):
        url = f"http://{host}:{port}"
        with posting(url, timeout_s=20) as client, ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.post_large, "/", PARTS, {})
            while _line_of(client)._calling is None:
                time.sleep(0.01)
            time.sleep(0.2)
            began = time.monotonic()
            client.close()

            assert time.monotonic() - began < 5
            with pytest.raises(errors.Unavailable):
                asked.result()


def test_a_client_with_a_transport_of_its_own_posts_by_it() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.content[:6])

    with closing(HttpClient("http://x", service="peer", transport=httpx.MockTransport(answer))) as client:
        assert client.post_large("/", PARTS, {}) == b"headxx"


def test_a_peer_that_is_down_is_left_alone() -> None:
    with posting(f"http://127.0.0.1:{free_port()}") as client:
        for _ in range(8):
            with pytest.raises(errors.Unavailable, match="ConnectionRefusedError"):
                client.post_large("/", PARTS, {})

        with pytest.raises(errors.Unavailable, match="has not answered for a while"):
            client.post_large("/", PARTS, {})
