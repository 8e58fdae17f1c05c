"""Triton's extensions of V2 that its clients and tools ask for: a model's configuration, and its statistics."""

from __future__ import annotations

from typing import Any

from modelyard_inference.api.described import config_of, statistics_of
from modelyard_inference.api.errors import v2_error
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v2_errors
from modelyard_inference.api.rest.error_routes import error_route
from modelyard_inference.api.rest.slashes import SlashRouter

__all__ = ["router"]

router = SlashRouter(prefix="/v2/models", tags=["triton"], route_class=error_route(v2_error), responses=v2_errors())


@router.get("/stats")
def all_statistics(services: Services) -> dict[str, Any]:
    """Show the statistics of every version that is loaded."""
    found = [statistics_of(serving, serving.loaded, services.totals) for serving in services.served.all()]
    return {"model_stats": [one for several in found for one in several]}


@router.get("/{model}/stats")
def model_statistics(model: str, services: Services) -> dict[str, Any]:
    """Show the statistics of a model's versions."""
    serving = services.served.find(model)
    return {"model_stats": statistics_of(serving, serving.loaded, services.totals)}


@router.get("/{model}/versions/{version}/stats")
def version_statistics(model: str, version: str, services: Services) -> dict[str, Any]:
    """Show the statistics of one version."""
    serving = services.served.find(model)
    return {"model_stats": statistics_of(serving, [serving.version(version)], services.totals)}


@router.get("/{model}/config")
def model_config(model: str, services: Services) -> dict[str, Any]:
    """Show a model's configuration."""
    serving = services.served.find(model)
    return config_of(serving, serving.champion)


@router.get("/{model}/versions/{version}/config")
def version_config(model: str, version: str, services: Services) -> dict[str, Any]:
    """Show the configuration of one version."""
    serving = services.served.find(model)
    return config_of(serving, serving.version(version))
