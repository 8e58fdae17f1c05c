"""One connection to a peer that is kept, for large bodies that are posted again and again.

``http.client`` costs a fraction of what httpx does for a request, the more so where its code has left the processor's
caches since the last one; and it does not copy what is left of a body each time that the socket has taken some. It
knows of no deadline, so that each wait is given what is left.
"""

from __future__ import annotations

import errno
import http.client
import io
import select
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import httpx

from modelyard_common.trust import trust_for

__all__ = ["KeptLine", "LineTaken"]

_MOST_ANSWER_BYTES = 1024**2


class LineAnswer(NamedTuple):
    """What the peer said; names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


class LineTaken(Exception):
    """Others had the line until the deadline."""


class _Pieces(io.RawIOBase):
    """What arrives, up to a deadline. It keeps the socket, which ``http.client`` lets go of before."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._arriving = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def readinto(self, into: Any) -> int | None:
        """Read what comes next. Raise TimeoutError where nothing does."""
        _wait_until(self._sock, self._deadline)
        return self._arriving.readinto(into)

    def close(self) -> None:
        """Let go of the socket."""
        self._arriving.close()
        super().close()


class _Within:
    """A socket as ``http.client`` reads an answer from it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._pieces = _Pieces(sock, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what the answer is read from."""
        del mode
        return io.BufferedReader(self._pieces)


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
        self._connection = http.client.HTTPConnection(self._host, self._port)
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
            http.client.HTTPException: what came was no answer.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise LineTaken
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the line is closed")
            return self._post(path, parts, headers, deadline)
        except BaseException as exc:
            self._connection.close()  # nobody knows what of it is still to come
            if isinstance(exc, ValueError | OverflowError | MemoryError) and not isinstance(exc, OSError):
                raise http.client.HTTPException("the answer is none") from exc
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Hang up, also on who waits for an answer; a second call does nothing."""
        self._closed = True
        if (sock := self._connection.sock or self._calling) is not None:
            with suppress(OSError):
                # Not TLS's own, which lets go of the encryption first: what is being sent would go on without.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        with self._turn:
            self._connection.close()

    def _post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str], deadline: float) -> LineAnswer:
        line = self._connection
        if line.sock is not None and _has_hung_up(line.sock):
            line.close()
        if line.sock is None:
            line.sock = self._connected(deadline)
            if self._closed:
                raise OSError(errno.EBADF, "the line is closed")
        line.putrequest("POST", self._prefix + path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({**headers, **self._own, "content-length": str(sum(map(len, parts)))}).items():
            line.putheader(name, value)
        refused_early = False
        try:
            _wait_until(line.sock, deadline)
            line.endheaders()
            for part in parts:
                _wait_until(line.sock, deadline)
                line.send(part)
        except (BrokenPipeError, ConnectionResetError):
            refused_early = True  # by who has seen the head, and does not read the body: it may have said why
        cast(Any, line).response_class = lambda sock, **named: http.client.HTTPResponse(
            cast(socket.socket, _Within(sock, deadline)), **named
        )
        response = line.getresponse()
        content = response.read(_MOST_ANSWER_BYTES + 1)
        if response.status < 200 or response.length or len(content) > _MOST_ANSWER_BYTES:
            raise http.client.HTTPException("the answer is none")
        if refused_early:
            line.close()
        return LineAnswer(
            response.status, response.reason, {name.lower(): value for name, value in response.getheaders()}, content
        )

    def _connected(self, deadline: float) -> socket.socket:
        """Return a connection to the first of the peer's addresses that takes one."""
        failed: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
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
