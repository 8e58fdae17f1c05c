"""What is loaded here, from which revision, how old the routing is, and how full the spool."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from modelyard_contracts.base import View
from modelyard_contracts.refs import DigestText, ModelName

from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import problems
from modelyard_inference.api.services import SpoolView
from modelyard_inference.usecases.serving import Serving

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["admin"], responses=problems())


class LoadedView(View):
    """A version that is loaded."""

    number: int
    digest: DigestText
    runtime: str
    role: Literal["champion", "candidate", "kept"]
    problem: str = ""
    """Why it cannot be asked now, where its runtime is a process or a server that may be away."""


class ServedModelView(View):
    """A model that is served."""

    name: ModelName
    revision: int
    weight: int = 0
    shadow: bool = False
    tripped: bool = False
    """The candidate failed several times in a row and gets no more requests here."""
    versions: tuple[LoadedView, ...]


class ServerView(View):
    """What this server serves."""

    models: tuple[ServedModelView, ...]
    waiting: dict[str, str]
    """Models that are not served, and why."""
    routing_age_s: float | None
    """Since the routing was last known to be the registry's; null if it never was."""
    shadow_waiting_rows: int
    spool: SpoolView


@router.get("/served")
def served(services: Services) -> ServerView:
    """Show what is loaded, by which revision, and what waits."""
    return ServerView(
        models=tuple(_view(serving) for serving in services.served.all()),
        waiting=dict(services.served.waiting),
        routing_age_s=services.routing_age_s(),
        shadow_waiting_rows=services.shadow_rows(),
        spool=services.spool(),
    )


def _view(serving: Serving) -> ServedModelView:
    candidate = serving.routing.candidate

    def role(index: int) -> Literal["champion", "candidate", "kept"]:
        if index == 0:
            return "champion"
        return "candidate" if index == 1 and serving.candidate is not None else "kept"

    return ServedModelView(
        name=serving.routing.model,
        revision=serving.routing.revision,
        weight=candidate.weight if candidate else 0,
        shadow=candidate.shadow if candidate else False,
        tripped=serving.guard.tripped if serving.guard else False,
        versions=tuple(
            LoadedView(
                number=loaded.version.number,
                digest=loaded.version.digest,
                runtime=loaded.runtime.name,
                role=role(index),
                problem=loaded.problem,
            )
            for index, loaded in enumerate(serving.loaded)
        ),
    )
