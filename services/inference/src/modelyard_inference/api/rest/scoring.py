"""What MLflow's scoring server answers beside invocations: ``/ping`` and ``/version``."""

from __future__ import annotations

from fastapi import Response
from fastapi.responses import PlainTextResponse

from modelyard_inference.api.described import VERSION
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import problems
from modelyard_inference.api.rest.readiness import readiness
from modelyard_inference.api.rest.slashes import SlashRouter

__all__ = ["router"]

router = SlashRouter(tags=["mlflow scoring"], responses=problems())


@router.get("/ping", response_class=PlainTextResponse, responses={503: {"description": "It cannot."}})
def ping(services: Services) -> Response:
    """Tell whether the server can do its job."""
    return PlainTextResponse("\n", *readiness(services))


@router.get("/version", response_class=PlainTextResponse)
def version() -> str:
    """Show the version of the server."""
    return VERSION
