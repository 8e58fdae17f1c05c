"""The model repository extension of V2: what is loaded here, load and unload.

Which versions a model has, and which of them answers, is the registry's to say. So load means: serve this model as its
routing says, now; unload: do not serve it in this process until it is loaded again. Nothing else of a load is taken.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from modelyard_common.auth.guards import principal_of
from modelyard_common.errors import TooLarge
from modelyard_contracts.open_inference import IndexEntry

from modelyard_inference.api.bodies import opened
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.codecs.text import decoded
from modelyard_inference.api.described import index_of
from modelyard_inference.api.errors import v2_error
from modelyard_inference.api.front import Labels
from modelyard_inference.api.loading import check_load_parameters, may_load
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v2_errors
from modelyard_inference.api.rest.error_routes import error_route
from modelyard_inference.api.rest.slashes import SlashRouter

__all__ = ["router"]

router = SlashRouter(
    prefix="/v2/repository", tags=["open inference"], route_class=error_route(v2_error), responses=v2_errors()
)


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _LoadRequest(msgspec.Struct):
    parameters: dict[str, Any] | None = None


@router.post("/index")
async def index(request: Request, services: Services) -> list[IndexEntry]:
    """List the versions that are loaded; unless ``{"ready": true}`` is asked also the models that wait for one."""
    asked = await _sent(request, services, _IndexRequest)
    return index_of(services.served, only_ready=asked.ready)


@router.post("/models/{model}/load")
async def load(model: str, request: Request, services: Services) -> dict[str, object]:
    """Serve a model as its routing says, now. For admins and services."""
    may_load(principal_of(request))
    check_load_parameters((await _sent(request, services, _LoadRequest)).parameters or ())
    await run_in_threadpool(services.loading.load, model)
    return {"name": model, "load": True}


@router.post("/models/{model}/unload")
async def unload(model: str, request: Request, services: Services) -> dict[str, object]:
    """Stop serving a model in this process until it is loaded again. For admins and services."""
    may_load(principal_of(request))
    check_load_parameters((await _sent(request, services, _LoadRequest)).parameters or (), unload=True)
    await run_in_threadpool(services.loading.unload, model)
    return {"name": model, "unload": True}


async def _sent(request: Request, services: Services, shape: type[Any]) -> Any:
    sent = await request.body()
    async with opened(sent, request.headers.get("content-encoding", ""), services.front, Labels()) as body:
        if len(body) > LARGE_BYTES:  # nothing here is as long, so that it may be read on the event loop
            raise TooLarge(f"the body is larger than {LARGE_BYTES} bytes; send parameters only")
        return decoded(msgspec.json.Decoder(shape), body) if body.strip() else shape()
