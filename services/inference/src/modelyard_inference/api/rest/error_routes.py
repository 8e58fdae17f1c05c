"""Routes of FastAPI whose errors are those of their protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from modelyard_common.errors import ModelyardError, NotFound

from modelyard_inference.api.errors import ErrorBody, protocol_status, retry_after

__all__ = ["error_route", "refuse_the_rest"]


def error_route(error_body: Callable[[ModelyardError], ErrorBody]) -> type[APIRoute]:
    """Return the class of FastAPI routes whose errors are written so."""

    class ProtocolRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handler(request)
                except ModelyardError as exc:
                    wait = retry_after(exc)
                    headers = {"retry-after": wait} if wait else None
                    content, media_type = error_body(exc)
                    return Response(content, protocol_status(exc), headers, media_type)

            return answer

    return ProtocolRoute


def refuse_the_rest(router: APIRouter, path: str) -> None:
    """Answer any other path below this one with the router's own kind of error."""

    def refuse(request: Request) -> None:
        raise NotFound(f"{request.method} {request.url.path[:128]} is nothing that is answered here; see /docs")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    router.add_api_route(f"{path}/{{rest:path}}", refuse, methods=methods, include_in_schema=False)
