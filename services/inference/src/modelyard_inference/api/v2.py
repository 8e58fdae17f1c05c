"""Open Inference Protocol V2, the calm part: server and model metadata, readiness, the repository index."""

from __future__ import annotations

from fastapi import APIRouter, Response
from modelyard_contracts.open_inference import IndexEntry, ModelMetadata, ServerMetadata
from starlette.responses import JSONResponse

from modelyard_inference.api.codecs.v2 import input_tensors, output_tensors
from modelyard_inference.api.errors import V2Route
from modelyard_inference.api.services import Services
from modelyard_inference.usecases.serving import LoadedVersion, Serving

__all__ = ["VERSION", "router"]

VERSION = "0.1.0"

router = APIRouter(prefix="/v2", tags=["open inference"], route_class=V2Route)


@router.get("")
def server() -> ServerMetadata:
    """Show the server's name, version and extensions."""
    return ServerMetadata(name="modelyard-inference", version=VERSION, extensions=("model_repository(index)",))


@router.get("/health/live")
def live() -> dict[str, bool]:
    """Tell whether the process runs."""
    return {"live": True}


@router.get("/health/ready")
def ready(services: Services) -> Response:
    """Tell whether the server can do its job."""
    is_ready = services.health.report().ready
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)


@router.get("/models/{model}")
def metadata(model: str, services: Services) -> ModelMetadata:
    """Show what a model takes and gives."""
    serving = services.served.find(model)
    return _metadata(serving, serving.champion)


@router.get("/models/{model}/ready")
def model_ready(model: str, services: Services) -> dict[str, object]:
    """Tell whether a model answers now."""
    services.served.find(model)
    return {"name": model, "ready": True}


@router.get("/models/{model}/versions/{version}")
def version_metadata(model: str, version: str, services: Services) -> ModelMetadata:
    """Show what one version takes and gives."""
    serving = services.served.find(model)
    return _metadata(serving, serving.version(version))


@router.get("/models/{model}/versions/{version}/ready")
def version_ready(model: str, version: str, services: Services) -> dict[str, object]:
    """Tell whether one version answers now."""
    services.served.find(model).version(version)
    return {"name": model, "version": version, "ready": True}


@router.post("/repository/index")
def index(services: Services) -> list[IndexEntry]:
    """List all versions that are loaded, and the models that wait for one."""
    found = [
        IndexEntry(name=serving.routing.model, version=str(loaded.version.number), state="READY")
        for serving in services.served.all()
        for loaded in serving.loaded
    ]
    waiting = [
        IndexEntry(name=name, version="", state="UNAVAILABLE", reason=reason)
        for name, reason in sorted(services.served.waiting.items())
    ]
    return found + waiting


def _metadata(serving: Serving, loaded: LoadedVersion) -> ModelMetadata:
    return ModelMetadata(
        name=serving.routing.model,
        versions=tuple(str(one.version.number) for one in serving.loaded),
        platform=loaded.platform,
        inputs=input_tensors(loaded.signature),
        outputs=output_tensors(loaded.signature),
    )
