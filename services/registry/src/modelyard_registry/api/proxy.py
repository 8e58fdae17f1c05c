"""MLflow's API for stock clients: reads pass, everything else is refused, in MLflow's own form of errors."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from modelyard_common.errors import Invalid, NotFound, TooLarge, Unavailable
from starlette.concurrency import run_in_threadpool

from modelyard_registry.api.access import Reading
from modelyard_registry.api.metrics import PROXIED, PROXY_SECONDS
from modelyard_registry.api.services import Registry, RegistryState
from modelyard_registry.domain.mlflow_routes import allowed, refusal, run_artifact
from modelyard_registry.usecases.find_governed_file import find_governed_file

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
    governed = await run_in_threadpool(_governed, registry, path) if request.method == "GET" else None
    if governed is not None:
        return governed
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


def _governed(registry: RegistryState, path: str) -> Response | None:
    """Return a governed bundle's file out of the verified cache; None when the path is not of one.

    Somebody who can write to the artifact store may change what MLflow would answer, never what we do.
    """
    asked = run_artifact(path)
    if asked is None:
        return None
    with registry.transactions.read() as reader:
        found = find_governed_file(reader, *asked)
    if found is None:
        return None
    try:
        file = registry.bundles.open(*found)
    except NotFound as exc:
        PROXIED.labels("refused").inc()
        return _error(404, "RESOURCE_DOES_NOT_EXIST", f"{exc}; what its manifest does not list is not served")
    except Unavailable as exc:
        PROXIED.labels("unavailable").inc()
        return _error(503, "TEMPORARILY_UNAVAILABLE", str(exc), {"Retry-After": "1"})
    except Invalid as exc:
        PROXIED.labels("refused").inc()
        return _error(400, "INVALID_STATE", f"the artifacts in MLflow are not those of {found[0].name}: {exc}")
    PROXIED.labels("governed").inc()
    headers = {"ETag": f'"{file.digest}"', "Content-Length": str(file.size_bytes), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(file.chunks(), media_type="application/octet-stream", headers=headers)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error_code": code, "message": message}, status_code=status, headers=headers)
