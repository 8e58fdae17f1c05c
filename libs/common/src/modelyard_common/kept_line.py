"""One connection to a peer that is kept, for large bodies that are posted again and again.

It costs a fraction of what httpx does for a request, or ``http.client``, the more so where their code has left the
processor's caches since the last one: a head is written in one piece, httptools' parser, which is that of our servers,
reads the answer, and nothing of a body is copied. Each wait is given what is left until the deadline.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from modelyard_common.trust import trust_for

__all__ = ["KeptLine", "LineTaken", "NoAnswer"]

_MOST_ANSWER_BYTES = 1024**2
_MOST_HEAD_BYTES = 64 * 1024
_AT_ONCE = 16 * 1024
"""Bytes of an answer that are read at a time; and of a body, which then goes out together with its head."""
_BREAKS = re.compile(r"[\r\n\0]")
"""What would end a header."""


class LineAnswer(NamedTuple):
    """What the peer said; names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


class LineTaken(Exception):
    """Others had the line until the deadline."""


class NoAnswer(Exception):
    """What came is none, or no whole one."""


class _Reading:
    """Reads one answer: httptools calls its methods."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._taken = 0
        """Bytes of all that came: of a body also what frames it, and trailers."""
        self._in_body = False
        self.on_message_begin()
        self.answer: LineAnswer | None = None
        self.is_last = False
        """Nothing may be asked on this connection any more."""

    def take(self, data: bytes) -> None:
        """Take what came. Raise NoAnswer for what is none."""
        if not data:
            self._end()
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as exc:
            raise NoAnswer("the peer speaks another protocol from here on") from exc
        except HttpParserError as exc:
            if self.answer is None:
                raise NoAnswer("this is not HTTP") from exc
            self.is_last = True
        self._taken += len(data)
        if not self._in_body and self._taken > _MOST_HEAD_BYTES:
            raise NoAnswer("the head is too large")
        if self._size > _MOST_ANSWER_BYTES or self._taken > 2 * _MOST_ANSWER_BYTES:
            raise NoAnswer("the answer is too large")

    def close(self) -> None:
        """Let go of the parser, which has this by its methods: neither is left to the garbage collector."""
        del self._parser

    def _end(self) -> None:
        """Take the end of the connection, which may be that of the answer (RFC 9112, section 6.3)."""
        if not self._in_body or not self._headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            raise NoAnswer("it ends before the answer does")
        self.on_message_complete()
        self.is_last = True

    def on_message_begin(self) -> None:
        """Begin: with what comes before the answer (RFC 9110, section 15.2), or with it."""
        self.is_last = True  # unless this is the first that came
        self._reason = b""
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def on_status(self, reason: bytes) -> None:
        """Take a piece of the reason."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What comes behind the body is none (RFC 9110, section 6.5.1)."""
        if not self._in_body:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Expect the body. Raise NoAnswer, which the parser wraps, for a status that there is not."""
        status = self._parser.get_status_code()
        if status < 100:
            raise NoAnswer("there is no such status")
        self._in_body = status >= 200

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._size += len(part)
        if self._size <= _MOST_ANSWER_BYTES:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        """End, unless what ended only came before the answer."""
        status = self._parser.get_status_code()
        if status >= 200 and self.answer is None:
            reason = self._reason.decode("latin-1")
            self.answer = LineAnswer(status, reason, self._headers, b"".join(self._parts))
            self.is_last = not self._parser.should_keep_alive()


class KeptLine:
    """Posts to one peer, one request at a time.

    Args:
        base_url: of the peer, http or https.
    """

    def __init__(self, base_url: str) -> None:
        url = httpx.URL(base_url)
        self._prefix = url.raw_path.decode().rstrip("/")
        self._own = {"host": url.netloc.decode()}
        if url.userinfo:
            self._own["authorization"] = f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}"
        is_secure = url.scheme == "https"
        self._trust = trust_for(base_url) if is_secure else None
        self._host = url.raw_host.decode().strip("[]")
        self._port = url.port or (443 if is_secure else 80)
        self._sock: socket.socket | None = None
        self._calling: socket.socket | None = None
        self._turn = threading.Lock()
        self._closed = False

    def post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str], deadline: float) -> LineAnswer:
        """Post a body, which may be in parts.

        Args:
            deadline: monotonic time at which the answer has to be there. How long the system takes to find a name is
                not bounded by it.

        Raises:
            LineTaken: others had it until then.
            OSError: there was no answer until then; a TimeoutError where the peer was only slow.
            NoAnswer: what came was none.
            ValueError: a header that has more than one line.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise LineTaken
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the line is closed")
            return self._post(path, parts, headers, deadline)
        except BaseException:
            self._hang_up()  # nobody knows what of it is still to come
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Hang up, also on who waits for an answer; a second call does nothing."""
        self._closed = True
        if (sock := self._sock or self._calling) is not None:
            with suppress(OSError):
                # Not TLS's own, which lets go of the encryption first: what is being sent would go on without.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        with self._turn:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str], deadline: float) -> LineAnswer:
        head = self._head(path, {**headers, **self._own, "content-length": str(sum(map(len, parts)))})
        if self._sock is not None and _has_hung_up(self._sock):
            self._hang_up()
        sock = self._sock
        if sock is None:
            sock = self._sock = self._connected(deadline)
            if self._closed:
                raise OSError(errno.EBADF, "the line is closed")
        refused_early = False
        try:
            for part in _with_head(head, parts):
                _wait_until(sock, deadline)
                sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            refused_early = True  # by who has seen the head, and does not read the body: it may have said why
        with closing(_Reading()) as reading:
            while reading.answer is None:
                _wait_until(sock, deadline)
                reading.take(sock.recv(_AT_ONCE))
        if refused_early or reading.is_last:
            self._hang_up()
        return reading.answer

    def _head(self, path: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"POST {self._prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any(map(_BREAKS.search, lines)):
            raise ValueError("a header has more than one line")
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")

    def _connected(self, deadline: float) -> socket.socket:
        """Return a connection to the first of the peer's addresses that takes one."""
        failed: OSError | None = None
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError as exc:  # an empty label, or one that is too long
            raise OSError(errno.EADDRNOTAVAIL, "the peer's name can be none") from exc
        for family, kind, protocol, _, address in found:
            sock = self._calling = socket.socket(family, kind, protocol)
            try:
                _wait_until(sock, deadline)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._trust is None:
                    return sock
                _wait_until(sock, deadline)
                return self._trust.wrap_socket(sock, server_hostname=self._host)
            except OSError as exc:
                sock.close()
                failed = exc
        raise failed or OSError(errno.EADDRNOTAVAIL, "the peer has no address")


def _with_head(head: bytes, parts: Sequence[bytes]) -> Sequence[bytes]:
    """Return what to send: the head together with the first part, unless that is large."""
    if parts and len(parts[0]) <= _AT_ONCE:
        return (head + parts[0], *parts[1:])
    return (head, *parts)


def _has_hung_up(sock: socket.socket) -> bool:
    """Return whether something came although nothing was asked: the end, as a rule."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return True


def _wait_until(sock: socket.socket, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the deadline is over")
    sock.settimeout(left_s)
