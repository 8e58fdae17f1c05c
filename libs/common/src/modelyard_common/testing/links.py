"""A TCP link to a server that a test can cut, stall and mend, to make a peer go away without touching the peer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

__all__ = ["Link", "link_to"]

T = TypeVar("T")


class Link:
    """Passes connections on to a server.

    It accepts by itself: a server of asyncio's that is closed just as it accepts loses that connection.

    Attributes:
        url: what to call instead of the server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self._loop = loop
        self._upstream = urlsplit(url)
        self._listener: socket.socket | None = None
        self._serving: dict[asyncio.Task[None], socket.socket] = {}
        self._flows = asyncio.Event()
        self._flows.set()
        self._port = 0
        self.url = ""

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self._run(self.close())

    def stall(self) -> None:
        """Go on taking connections, and pass nothing on: a peer behind a broken network."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Be a link again. What was connected before stays cut; what was stalled flows on."""
        self._run(self.open())

    async def open(self) -> None:
        """Listen, at the address of before if there was one, and pass on."""
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._take)
            self._port = self._listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"

    async def close(self) -> None:
        """End all connections, and listen no more."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for serving in self._serving:
            serving.cancel()
        while self._serving:
            await asyncio.wait(self._serving)
        await asyncio.sleep(0)  # so that what was aborted is closed

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _take(self) -> None:
        if self._listener is None:
            return
        with suppress(BlockingIOError, ConnectionAbortedError):
            caller, _ = self._listener.accept()
            caller.setblocking(False)
            serving = self._loop.create_task(self._serve(caller))
            self._serving[serving] = caller
            serving.add_done_callback(self._end)

    def _end(self, serving: asyncio.Task[None]) -> None:
        """Close what has no transport: it was cut before it had its first turn."""
        self._serving.pop(serving).close()

    async def _serve(self, caller: socket.socket) -> None:
        with ExitStack() as stack:
            reader, writer = await asyncio.open_connection(sock=caller)
            stack.callback(writer.transport.abort)
            await self._flows.wait()
            try:
                up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
            except OSError:
                return
            stack.callback(up_writer.transport.abort)
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))

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
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
