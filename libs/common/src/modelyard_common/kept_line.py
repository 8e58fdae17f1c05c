"""One connection to a peer that is kept, for large bodies that are posted again and again.

``http.client`` costs a fraction of what httpx does for a request, the more so where its code has left the processor's
caches since the last one; and it does not copy what is left of a body each time that the socket has taken some. It
knows of no deadline, so that each wait is given what is left.
"""

from __future__ import annotations

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

__all__ = ["KeptLine", "LineAnswer"]


class LineAnswer(NamedTuple):
    """What the peer said; names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


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
        self._turn = threading.Lock()
        if url.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.host, url.port, context=trust_for(base_url)
            )
        else:
            self._connection = http.client.HTTPConnection(url.host, url.port)

    def post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str], deadline: float) -> LineAnswer:
        """Post a body, which may be in parts.

        Args:
            deadline: monotonic time at which the answer has to be there.

        Raises:
            OSError: there was no answer until then; a TimeoutError where the peer was only slow.
            http.client.HTTPException: what came was no answer.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError("others had the line until the deadline")
        try:
            return self._post(path, parts, headers, deadline)
        except BaseException:
            self._connection.close()  # nobody knows what of it is still to come
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Hang up."""
        with self._turn:
            self._connection.close()

    def _post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str], deadline: float) -> LineAnswer:
        line = self._connection
        if line.sock is not None and _has_hung_up(line.sock):
            line.close()
        if line.sock is None:
            line.timeout = _left_s(deadline)
            line.connect()
        line.putrequest("POST", self._prefix + path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({**self._own, **headers, "content-length": str(sum(map(len, parts)))}).items():
            line.putheader(name, value)
        _wait_until(line.sock, deadline)
        line.endheaders()
        for part in parts:
            _wait_until(line.sock, deadline)
            line.send(part)
        cast(Any, line).response_class = lambda sock, **named: http.client.HTTPResponse(
            cast(socket.socket, _Within(sock, deadline)), **named
        )
        response = line.getresponse()
        content = response.read()
        return LineAnswer(
            response.status, response.reason, {name.lower(): value for name, value in response.getheaders()}, content
        )


def _has_hung_up(sock: socket.socket) -> bool:
    """Return whether something came although nothing was asked: the end, as a rule."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return True


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the deadline is over")
    return left_s


def _wait_until(sock: socket.socket, deadline: float) -> None:
    sock.settimeout(_left_s(deadline))
