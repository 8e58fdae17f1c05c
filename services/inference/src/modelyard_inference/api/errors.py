"""Errors as each protocol writes them. Statuses come from the one table, save that both protocols say 400 for Invalid.

A V2 error carries the fields of a problem document beside ``error``: V2 clients read the one, ours the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from modelyard_common import context
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.problems import problem_from, status_of

__all__ = ["V2Route", "protocol_status", "retry_after", "scoring_error", "v2_error"]

_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


def protocol_status(error: ModelyardError) -> int:
    """Return the HTTP status of an error in both protocols."""
    return 400 if isinstance(error, Invalid) else status_of(error)


def retry_after(error: ModelyardError) -> str | None:
    """Return when to try again, in seconds, for errors that pass."""
    if protocol_status(error) not in (429, 503):
        return None
    return str(max(1, round(getattr(error, "retry_after_s", None) or 1)))


def v2_error(error: ModelyardError) -> bytes:
    """Return the body of a V2 error."""
    problem = problem_from(error, request_id=context.request_id.get()).model_dump(mode="json", exclude_none=True)
    return msgspec.json.encode({"error": error.message, **problem, "status": protocol_status(error)})


def scoring_error(error: ModelyardError) -> bytes:
    """Return the body of an MLflow error."""
    code = _CODES.get(protocol_status(error), "INTERNAL_ERROR")
    return msgspec.json.encode({"error_code": code, "message": error.message})


class V2Route(APIRoute):
    """A FastAPI route whose errors are V2's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except ModelyardError as exc:
                wait = retry_after(exc)
                headers = {"retry-after": wait} if wait else None
                return Response(v2_error(exc), protocol_status(exc), headers, "application/json")

        return answer
