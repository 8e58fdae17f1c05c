"""A closed loop of requests on keep-alive connections: each sends its next request when its answer has come.

It speaks just enough HTTP/1.1 for that, since a full client would cost more than the servers that it measures. So
latencies are those of a caller that waits, not of an open queue: they say nothing of a server above its capacity.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

__all__ = ["Sample", "measure"]

_ENDING_S = 10.0
"""How long answers that are still due at the end may take."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured: answers within a time, and how long each took."""

    seconds: float
    latencies_ms: tuple[float, ...]
    cpu_s: float = 0.0
    """CPU seconds that the server took."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server a request: what other processes of the machine do hardly changes it."""
        return self.cpu_s / len(self.latencies_ms) * 1e6

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency, in ms, that this percentage of the requests stayed under."""
        return float(np.percentile(self.latencies_ms, share))

    def __add__(self, other: Sample) -> Sample:
        latencies_ms = self.latencies_ms + other.latencies_ms
        return Sample(self.seconds + other.seconds, latencies_ms, self.cpu_s + other.cpu_s)


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, until: float, ended: asyncio.Future[None]) -> None:
        self.latencies_ms: list[float] = []
        self._request = request
        self._until = until
        self._ended = ended
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP gives no other
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = time.perf_counter()
        self._buffer = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(RuntimeError(f"{head.splitlines()[0].decode()}: {body.decode(errors='replace')[:500]}"))
            return
        self.latencies_ms.append((now - self._sent) * 1e3)
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            if not self._ended.done():
                self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the server closed a connection"))

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, exc: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(exc)


def measure(url: str, body: bytes, *, connections: int, seconds: float) -> Sample:
    """Post the body for a while on some connections. Raise RuntimeError when an answer is not 200."""
    return asyncio.run(_measure(url, body, connections, seconds))


async def _measure(url: str, body: bytes, connections: int, seconds: float) -> Sample:
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    callers: list[_Caller] = []
    ends: list[asyncio.Future[None]] = []
    for _ in range(connections):
        ends.append(loop.create_future())
        callers.append(_Caller(request, start + seconds, ends[-1]))
        await loop.create_connection(lambda caller=callers[-1]: caller, place.hostname or "", place.port or 80)  # type: ignore[misc]
    async with asyncio.timeout(seconds + _ENDING_S):
        await asyncio.gather(*ends)
    latencies = tuple(latency for caller in callers for latency in caller.latencies_ms)
    return Sample(time.perf_counter() - start, latencies)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    raise ValueError("an answer without content-length cannot be told apart from the next")
