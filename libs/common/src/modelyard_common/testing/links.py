"""A TCP link to a server that a test can cut, stall and mend, to make a peer go away without touching the peer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

__all__ = ["Link", "link_to"]

T = TypeVar("T")


class Link:
    """Passes connections on to a server.

    Attributes:
        url: what to call instead of the server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self._loop = loop
        self._upstream = urlsplit(url)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._port = 0
        self.url = ""

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self._run(self._cut())

    def stall(self) -> None:
        """Go on taking connections, and pass nothing on: a peer behind a broken network."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Be a link again. What was connected before stays cut; what was stalled flows on."""
        self._loop.call_soon_threadsafe(self._flows.set)
        self._run(self.open())

    async def open(self) -> None:
        """Listen, at the address of before if there was one."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"

    async def close(self) -> None:
        """End for good."""
        self._flows.set()
        await self._cut()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flows.wait()
            up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        except OSError:
            writer.transport.abort()
            return
        finally:
            self._writers.discard(writer)
        pair = {writer, up_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()


@contextmanager
def link_to(url: str) -> Iterator[Link]:
    """Give a link to a server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="link")
    thread.start()
    link = Link(loop, url)
    try:
        link.mend()
        yield link
    finally:
        asyncio.run_coroutine_threadsafe(link.close(), loop).result(10)
        asyncio.run_coroutine_threadsafe(_settled(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _settled() -> None:
    """Let what was cut come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
