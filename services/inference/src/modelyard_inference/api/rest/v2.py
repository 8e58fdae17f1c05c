"""Open Inference Protocol V2, the calm part: server and model metadata, readiness."""

from __future__ import annotations

from fastapi import Response
from modelyard_contracts.open_inference import ModelMetadata, ServerMetadata
from starlette.responses import JSONResponse

from modelyard_inference.api.described import SERVER, metadata_of
from modelyard_inference.api.errors import v2_error
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v2_errors
from modelyard_inference.api.rest.error_routes import error_route, refuse_the_rest
from modelyard_inference.api.rest.readiness import readiness
from modelyard_inference.api.rest.slashes import SlashRouter

__all__ = ["router"]

router = SlashRouter(prefix="/v2", tags=["open inference"], route_class=error_route(v2_error), responses=v2_errors())


@router.get("")
def server() -> ServerMetadata:
    """Show the server's name, version and extensions."""
    return SERVER


@router.get("/health/live")
def live() -> dict[str, bool]:
    """Tell whether the process runs."""
    return {"live": True}


@router.get("/health/ready", responses={503: {"description": "It cannot."}})
def ready(services: Services) -> Response:
    """Tell whether the server can do its job."""
    status, headers = readiness(services)
    return JSONResponse({"ready": status == 200}, status, headers)


@router.get("/models/{model}")
def metadata(model: str, services: Services) -> ModelMetadata:
    """Show what a model takes and gives."""
    return metadata_of(services.served.find(model))


@router.get("/models/{model}/ready")
def model_ready(model: str, services: Services) -> dict[str, object]:
    """Tell whether a model answers now."""
    services.served.check(model)
    return {"name": model, "ready": True}


@router.get("/models/{model}/versions/{version}")
def version_metadata(model: str, version: str, services: Services) -> ModelMetadata:
    """Show what one version takes and gives."""
    serving = services.served.find(model)
    return metadata_of(serving, serving.version(version))


@router.get("/models/{model}/versions/{version}/ready")
def version_ready(model: str, version: str, services: Services) -> dict[str, object]:
    """Tell whether one version answers now."""
    services.served.check(model, version)
    return {"name": model, "version": version, "ready": True}


refuse_the_rest(router, "")
