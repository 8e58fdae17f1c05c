"""The V1 protocol beside its verbs: whether the server lives, which models there are, which are ready."""

from __future__ import annotations

from modelyard_inference.api.errors import v1_error
from modelyard_inference.api.paths import alias_of
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v1_errors
from modelyard_inference.api.rest.error_routes import error_route, refuse_the_rest
from modelyard_inference.api.rest.slashes import SlashRouter
from modelyard_inference.api.services import InferenceServices

__all__ = ["router"]


router = SlashRouter(tags=["v1"], route_class=error_route(v1_error), responses=v1_errors())


@router.get("/")
def alive() -> dict[str, str]:
    """Tell that the server lives."""
    return {"status": "alive"}


@router.get("/v1/models")
def models(services: Services) -> dict[str, list[str]]:
    """List the models that are served."""
    return {"models": services.served.names}


@router.get("/v1/models/{model}")
def model_ready(model: str, services: Services) -> dict[str, object]:
    """Tell whether a model answers now."""
    return _ready(services, model)


@router.get("/v1/models/{model}/versions/{version}")
def version_ready(model: str, version: str, services: Services) -> dict[str, object]:
    """Tell whether one version answers now."""
    return _ready(services, model, version)


@router.get("/v1/models/{model}/labels/{label}")
def label_ready(model: str, label: str, services: Services) -> dict[str, object]:
    """Tell whether one version answers now, by its alias."""
    return _ready(services, model, alias_of(label))


def _ready(services: InferenceServices, model: str, version: str | None = None) -> dict[str, object]:
    services.served.check(model, version)
    return {"name": model, "ready": True}


refuse_the_rest(router, "/v1/models")
