"""What drift found: status, windows, episodes, decisions, comparisons, reports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from modelyard_common.pagination import MAX_PAGE, decode_number, encode_cursor
from modelyard_contracts.drift_v1 import Comparison, DecisionView, DriftStatus, EpisodeView, WindowView
from modelyard_contracts.pages import Page
from modelyard_contracts.refs import ModelName

from modelyard_drift.api.services import ANYBODY, Services

__all__ = ["router"]

router = APIRouter(prefix="/v1/models/{model}", tags=["findings"], dependencies=ANYBODY)

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.get("/status")
def get_status(model: ModelName, services: Services) -> DriftStatus:
    """Return where drift stands for a model."""
    return services.browse.status(model)


@router.get("/windows")
def list_windows(
    model: ModelName, services: Services, cursor: str | None = None, limit: Limit = 100
) -> Page[WindowView]:
    """Return closed windows, newest first."""
    found = services.browse.windows(model, before=decode_number(cursor), limit=limit)
    more = encode_cursor(found[-1].index) if len(found) == limit else None
    return Page(items=tuple(found), next_cursor=more)


@router.get("/episodes")
def list_episodes(
    model: ModelName, services: Services, cursor: str | None = None, limit: Limit = 100
) -> Page[EpisodeView]:
    """Return episodes, newest first, each with the last decision about it."""
    found = services.browse.episodes(model, before=decode_number(cursor), limit=limit)
    more = encode_cursor(found[-1][0]) if len(found) == limit else None
    return Page(items=tuple(view for _, view in found), next_cursor=more)


@router.get("/decisions")
def list_decisions(
    model: ModelName, services: Services, cursor: str | None = None, limit: Limit = 100
) -> Page[DecisionView]:
    """Return decisions, newest first."""
    found = services.browse.decisions(model, before=decode_number(cursor), limit=limit)
    more = encode_cursor(found[-1][0]) if len(found) == limit else None
    return Page(items=tuple(view for _, view in found), next_cursor=more)


@router.get("/comparison")
def get_comparison(model: ModelName, services: Services, revision: Annotated[int, Query(ge=0)]) -> Comparison:
    """Return candidate and champion within one routing revision."""
    return services.compare(model, revision)


@router.get("/reports/{window}", response_class=Response)
def get_report(
    model: ModelName,
    window: str,
    services: Services,
    format_: Annotated[Literal["json", "html"], Query(alias="format")] = "json",
) -> Response:
    """Return the report on a closed window, as JSON or as a page that needs nothing else."""
    report: dict[str, Any] = services.build_report(model, window)
    return HTMLResponse(services.report_page(report)) if format_ == "html" else JSONResponse(report)
