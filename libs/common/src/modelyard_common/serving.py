"""Serves an application until SIGTERM.

Then it is unready at once, still serves for ``drain_s`` (each answer ends its connection), finishes the requests in
flight, stops tasks and runs closers.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn

from modelyard_common.awake import Awake
from modelyard_common.connections import TICK_S, ConnectionBounds, tick
from modelyard_common.direct import DirectProtocol, Learned
from modelyard_common.gathering import Gathering
from modelyard_common.health import Health
from modelyard_common.lifespan import Companion
from modelyard_common.logs import get_logger
from modelyard_common.settings import ServiceSettings
from modelyard_common.tracing import shutdown_tracing

__all__ = ["Application", "bound", "protocol_of", "serve"]

_log = get_logger(__name__)


class Application(Protocol):
    """An ASGI application with what surrounds it.

    Attributes:
        state: has ``edge``, ``health`` and ``companions``.
    """

    @property
    def state(self) -> Any:
        """What wiring put there."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""


def serve(app: Application, settings: ServiceSettings, *, shared_port: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        shared_port: other processes of ours listen on it too.
    """
    server = _DrainingServer(app, settings)
    try:
        listener = bound(settings.host, settings.port, shared=shared_port)
        _log.info("service.listening", address=f"{settings.host}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])
    finally:
        shutdown_tracing()


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that has an address and does not listen yet; a shared one leaves it to others of ours too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name: asyncio turns Nagle's algorithm off for such sockets only, and 40 ms a request are lost with it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def protocol_of(app: Application, bounds: ConnectionBounds, *, awake_s: float = 0) -> Any:
    """Return what speaks HTTP for an application of ours: uvicorn asks for a class, calls it, and no more."""
    edge = app.state.edge
    gathering, awake = Gathering(edge), Awake(awake_s)
    return partial(DirectProtocol, bounds=bounds, edge=edge, learned=Learned(), gathering=gathering, awake=awake)


class _DrainingServer(uvicorn.Server):
    """Turns the first signal into a drain: unready first, shut down after ``drain_s``."""

    def __init__(self, app: Application, settings: ServiceSettings) -> None:
        bounds = ConnectionBounds(settings.request_patience_s, settings.max_connections)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(settings.grace_s)),
                timeout_keep_alive=75,
                server_header=False,
                http=protocol_of(app, bounds, awake_s=settings.awake_us / 1e6),
                # It is a layer around every request, for an address and a scheme that nothing here reads.
                proxy_headers=False,
                lifespan="on",
            )
        )
        self._health: Health = app.state.health
        self._drain_s = settings.drain_s
        self._companions: Sequence[Companion] = app.state.companions
        self._ending: list[asyncio.Task[None]] = []

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections; uvicorn calls this ten times a second."""
        if counter % round(TICK_S * 10) == 0:
            tick(self.server_state.connections)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle SIGTERM and SIGINT by draining."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Become unready now, and stop after the drain window; a second signal stops at once."""
        if self._health.is_draining:
            super().handle_exit(sig, frame)
            return
        self._health.drain()
        self._ask_to_hang_up()
        _log.info("service.draining", seconds=self._drain_s)
        loop = asyncio.get_running_loop() if _in_loop() else None
        if loop is None:
            self.should_exit = True
        else:
            loop.call_soon_threadsafe(loop.call_later, self._drain_s, self._exit)

    def _ask_to_hang_up(self) -> None:
        """Answer with ``Connection: close`` from now on (RFC 9112, section 9.6).

        A keep-alive connection that the client closes, having read so, cannot be cut under its next request.
        """
        self.config.encoded_headers = [*self.config.encoded_headers, (b"connection", b"close")]
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    def _exit(self) -> None:
        self.should_exit = True
        # Beside the HTTP server's end, and not after it: one grace for all.
        self._ending = [asyncio.ensure_future(companion.stop()) for companion in self._companions]


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
