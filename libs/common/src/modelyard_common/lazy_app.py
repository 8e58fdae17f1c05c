"""An application whose framework is loaded when somebody asks for what it answers: until then it takes no memory.

Raw routes and probes are there from the start. For a server that is asked for little else, such as predictions, the
framework would be its largest part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from modelyard_common.edge import Edge
from modelyard_common.errors import Unavailable
from modelyard_common.lifespan import Life
from modelyard_common.logs import get_logger
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.tasks import in_own_thread

__all__ = ["LazyApp", "Rest"]

Rest = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, whoever made it."""

_log = get_logger(__name__)


async def _sorry(request: RawRequest) -> RawAnswer:
    raise Unavailable("what answers this cannot be loaded; the log has the reason", retry_after_s=1)


_NOT_LOADED = RawRoute(lambda method, path: True, _sorry, "unmatched")


class LazyApp:
    """An ASGI application.

    Args:
        edge: around it, with its raw routes.
        life: its tasks and what ends with it.
        rest: makes what answers everything but raw routes, within the edge. It may take long, and is not called on the
            event loop.
        state: becomes ``state.<key>``.

    Attributes:
        state: also has ``edge``, ``health`` and ``companions``.
    """

    def __init__(
        self, *, edge: Edge, life: Life, rest: Callable[[], Rest], state: Mapping[str, object] | None = None
    ) -> None:
        self._edge = edge
        self._life = life
        self._make = rest
        self._rest: Rest | None = None
        self._loading: asyncio.Future[Rest | None] | None = None
        self.state: Any = SimpleNamespace(
            edge=edge, health=life.health, companions=life.companions, **dict(state or {})
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or live and end with the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "websocket":  # no service has one
            await send({"type": "websocket.close", "code": 1008})
            return
        route = self._edge.raw_route(scope)
        if route is not None:
            await self._edge.answer_raw(route, scope, receive, send)
            return
        rest = self._rest or await self._load()
        if rest is None:
            await self._edge.answer_raw(_NOT_LOADED, scope, receive, send)
        else:
            await rest(scope, receive, send)

    async def _load(self) -> Rest | None:
        """Return what answers the rest; None where it cannot be made, now. Whoever hangs up meanwhile ends nothing."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._made())
        return await asyncio.shield(self._loading)

    async def _made(self) -> Rest | None:
        try:
            self._rest = await in_own_thread("loading", self._make)
        except Exception as exc:
            _log.error("app.not_loaded", error=exc)
        else:
            _log.info("app.loaded")
        self._loading = None
        return self._rest

    async def _live(self, receive: Any, send: Any) -> None:
        """Speak ASGI's lifespan protocol (asgi.readthedocs.io, "Lifespan")."""
        await receive()
        stage = "startup"
        try:
            async with self._life.lived():
                await send({"type": "lifespan.startup.complete"})
                stage = "shutdown"
                await receive()
        except Exception as exc:
            _log.error(f"service.{stage}_failed", error=exc)
            await send({"type": f"lifespan.{stage}.failed"})
            return
        await send({"type": "lifespan.shutdown.complete"})
