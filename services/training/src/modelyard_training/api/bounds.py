"""JSON bodies have a bound of their own, far below that of datasets, which are streamed to the disk."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from modelyard_common.errors import Invalid, TooLarge

__all__ = ["JsonRoute"]


class JsonRoute(APIRoute):
    """A route that looks at the length of a body before it is read into memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            limit: int = request.app.state.settings.max_json_bytes
            length = request.headers.get("content-length", "0")
            if "transfer-encoding" in request.headers:
                raise Invalid("send the body with a Content-Length")
            if length.isdigit() and int(length) > limit:
                raise TooLarge(f"the body has {length} bytes; at most {limit} are taken")
            return await handler(request)

        return bounded
