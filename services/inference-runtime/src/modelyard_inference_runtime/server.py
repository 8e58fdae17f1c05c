"""The supervisor's socket: one thread a connection, one call at a time, everything bounded.

Whatever is no message of ours ends the connection with a reason, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from modelyard_bundle.isolated import (
    AWAY,
    INVALID,
    LOAD,
    OK,
    REPLACE,
    STATUS,
    UNLOAD,
    Load,
    Replace,
    Unload,
    decoded,
    encoded,
    received,
)
from modelyard_common.errors import Invalid, ModelyardError, Overloaded, Unavailable
from modelyard_common.frames import BadFrame, packed, read_frame
from modelyard_common.logs import get_logger

from modelyard_inference_runtime.supervisor import Supervisor

__all__ = ["SocketServer", "control_handler", "listening"]

_log = get_logger(__name__)
_FOREVER_S = 10 * 365 * 86400.0
_MOST_CONNECTIONS = 128
"""Connections at once: a server has one here, and one a thread at each version."""
_BODY_S = 10.0

Handler = Callable[[int, bytes], bytes]
"""Answers one call: kind and body in, body out. Raises Invalid, Unavailable or what its model raises."""


def listening(address: Path) -> socket.socket:
    """Return a socket that listens there, for this user alone; one that was left by a dead process is replaced."""
    address.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(address))
    finally:
        os.umask(before)
    sock.listen(_MOST_CONNECTIONS)
    return sock


class SocketServer:
    """Serves calls until it is closed.

    Args:
        handler: makes what answers the calls of one connection, and what is called when that ends.
        failed: what to do about an exception that is no error of ours; returns the answer's kind and body.
        most_bytes: of one call.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[], tuple[Handler, Callable[[], None]]],
        failed: Callable[[Exception], tuple[int, bytes]],
        *,
        most_bytes: int,
    ) -> None:
        self._socket = sock
        self._handler = handler
        self._failed = failed
        self._most_bytes = most_bytes
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def serve(self) -> None:
        """Take connections until the socket is closed."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._attend, args=[connection], name="connection", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _attend(self, connection: socket.socket) -> None:
        handle, ended = self._handler()
        try:
            with connection:
                while self._one(connection, handle):
                    pass
        except OSError:
            pass  # the other side has ended
        finally:
            ended()
            self._places.release()

    def _one(self, connection: socket.socket, handle: Handler) -> bool:
        """Answer one call; return whether another may follow."""
        try:
            # A server may have nothing to ask for days; once it has begun to, the rest follows at once.
            first = received(connection, time.monotonic() + _FOREVER_S)(1)
            rest = received(connection, time.monotonic() + _BODY_S)
            taken = bytearray(first)

            def read(length: int) -> bytes:
                head = bytes(taken)
                taken.clear()
                return head + rest(length - len(head))

            kind, body = read_frame(read, self._most_bytes)
        except EOFError:
            return False
        except BadFrame as exc:
            connection.sendall(packed(INVALID, str(exc).encode()))
            return False
        try:
            answer = OK, handle(kind, body)
        except (Unavailable, Overloaded) as exc:
            answer = AWAY, exc.message.encode()
        except ModelyardError as exc:
            answer = INVALID, exc.message.encode()
        except Exception as exc:
            answer = self._failed(exc)
        connection.sendall(packed(*answer))
        return True


def control_handler(supervisor: Supervisor) -> tuple[Handler, Callable[[], None]]:
    """Return what answers one connection to the supervisor, and what is called when it ends."""
    holder = object()

    def load(body: bytes) -> bytes:
        return encoded(supervisor.load(holder, decoded(body, Load)))

    def unload(body: bytes) -> bytes:
        supervisor.unload(holder, decoded(body, Unload).digest)
        return b""

    def replace(body: bytes) -> bytes:
        supervisor.replace(decoded(body, Replace))
        return b""

    calls: Mapping[int, Callable[[bytes], bytes]] = {
        LOAD: load,
        UNLOAD: unload,
        REPLACE: replace,
        STATUS: lambda body: encoded(supervisor.status()),
    }

    def handle(kind: int, body: bytes) -> bytes:
        if (call := calls.get(kind)) is None:
            raise Invalid(f"there is no call {kind} here")
        return call(body)

    return handle, lambda: supervisor.let_go(holder)
