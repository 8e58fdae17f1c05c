"""A deadline for a whole call over httpx, whose own bounds are those of each wait.

A peer that sends the head of its answer byte by byte keeps each of those, and its caller for hours. httpx gives no hook
between two bytes of a head: what it reads from is put in between, where each of its pools of connections has a backend.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any

import httpx

__all__ = ["CallDeadline"]

_PIECE_BYTES = 64 * 1024
"""Sent between two looks at the clock."""


class _Deadline(threading.local):
    """Of the call that this thread makes, in seconds, monotonic."""

    at: float = math.inf

    def left_s(self, timeout: float | None, late: type[httpx.TimeoutException]) -> float | None:
        """Return how long a wait may take that has a bound of its own."""
        if self.at == math.inf:
            return timeout
        left_s = self.at - time.monotonic()
        if left_s <= 0:
            raise late("the deadline is over")
        return left_s if timeout is None else min(timeout, left_s)


class _Stream:
    """A connection."""

    def __init__(self, stream: Any, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content: bytes = self._stream.read(max_bytes, self._deadline.left_s(timeout, httpx.ReadTimeout))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _PIECE_BYTES):
            left_s = self._deadline.left_s(timeout, httpx.WriteTimeout)
            self._stream.write(view[start : start + _PIECE_BYTES], left_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        left_s = self._deadline.left_s(timeout, httpx.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend:
    """Opens connections."""

    def __init__(self, backend: Any, deadline: _Deadline) -> None:
        self._backend = backend
        self._deadline = deadline

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **named: Any) -> _Stream:
        left_s = self._deadline.left_s(timeout, httpx.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, timeout=left_s, **named), self._deadline)


class CallDeadline:
    """Bounds whole calls of a client, also those that go by way of a proxy of the environment.

    Args:
        client: whose transports are httpx's own; another is not bounded.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._deadline = _Deadline()
        for transport in (client._transport, *client._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                pool: Any = transport._pool
                pool._network_backend = _Backend(pool._network_backend, self._deadline)

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Bound what this thread asks within: httpx.TimeoutException is raised soon after the deadline.

        How long the system takes to find a name is not bounded by it.

        Args:
            deadline: seconds, monotonic.
        """
        self._deadline.at = deadline
        try:
            yield
        finally:
            self._deadline.at = math.inf
