"""MLflow's API for stock clients: reads pass, everything else is refused, in MLflow's own form of errors."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from modelyard_common.errors import TooLarge, Unavailable
from starlette.concurrency import run_in_threadpool

from modelyard_registry.adapters.metrics import PROXIED, PROXY_SECONDS
from modelyard_registry.api.access import Reading
from modelyard_registry.api.services import Registry
from modelyard_registry.domain.mlflow_routes import allowed, refusal

__all__ = ["router"]

router = APIRouter(tags=["mlflow"], include_in_schema=False)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
MAX_QUERY_BYTES = 1024 * 1024
"""The largest search; MLflow clients send a filter and a page token."""


@router.api_route("/api/{rest:path}", methods=METHODS)
@router.api_route("/ajax-api/{rest:path}", methods=METHODS)
@router.api_route("/graphql", methods=METHODS)
@router.api_route("/get-artifact", methods=METHODS)
@router.api_route("/model-versions/{rest:path}", methods=METHODS)
@router.api_route("/gateway/{rest:path}", methods=METHODS)
@router.api_route("/v1/traces", methods=METHODS)
async def pass_on(request: Request, registry: Registry, _: Reading) -> Response:
    """Pass a read on to MLflow, or refuse."""
    path = request.url.path
    if not allowed(request.method, path):
        PROXIED.labels("refused").inc()
        return _error(403, "PERMISSION_DENIED", refusal(request.method, path))
    body = await request.body()
    if len(body) > MAX_QUERY_BYTES:
        return _error(413, "INVALID_PARAMETER_VALUE", f"a search takes at most {MAX_QUERY_BYTES} bytes")
    try:
        with PROXY_SECONDS.time():
            answer = await run_in_threadpool(
                registry.proxy.forward, request.method, path, request.url.query, dict(request.headers), body
            )
    except Unavailable as exc:
        PROXIED.labels("unavailable").inc()
        return _error(503, "TEMPORARILY_UNAVAILABLE", str(exc), {"Retry-After": "1"})
    except TooLarge as exc:
        PROXIED.labels("too_large").inc()
        return _error(502, "INTERNAL_ERROR", str(exc))
    PROXIED.labels("passed").inc()
    return StreamingResponse(answer.body, status_code=answer.status, headers=dict(answer.headers))


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error_code": code, "message": message}, status_code=status, headers=headers)
