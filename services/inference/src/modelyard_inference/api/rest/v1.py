"""The V1 protocol beside ``:predict``: whether the server lives, whether a model is ready."""

from __future__ import annotations

from modelyard_inference.api.errors import v1_error
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v1_errors
from modelyard_inference.api.rest.error_routes import error_route
from modelyard_inference.api.rest.slashes import SlashRouter

__all__ = ["router"]


router = SlashRouter(tags=["v1"], route_class=error_route(v1_error), responses=v1_errors())


@router.get("/")
def alive() -> dict[str, str]:
    """Tell that the server lives."""
    return {"status": "alive"}


@router.get("/v1/models/{model}")
def model_ready(model: str, services: Services) -> dict[str, object]:
    """Tell whether a model answers now."""
    services.served.check(model)
    return {"name": model, "ready": True}
