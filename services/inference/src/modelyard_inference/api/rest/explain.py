"""V1's ``:explain``: rows in, what each feature added out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import Request
from modelyard_common.errors import Invalid
from modelyard_contracts.explanations_v1 import Background, ExplainResponse, RowExplanation

from modelyard_inference.api.bodies import opened
from modelyard_inference.api.codecs import scoring
from modelyard_inference.api.errors import v1_error
from modelyard_inference.api.front import Labels
from modelyard_inference.api.paths import alias_of
from modelyard_inference.api.rest.dependencies import Services
from modelyard_inference.api.rest.error_documents import v1_errors
from modelyard_inference.api.rest.error_routes import error_route
from modelyard_inference.api.rest.slashes import SlashRouter
from modelyard_inference.api.services import InferenceServices
from modelyard_inference.usecases.explain import Explained, Explanation

__all__ = ["router"]

router = SlashRouter(prefix="/v1/models", tags=["v1"], route_class=error_route(v1_error), responses=v1_errors())

_BODY = {
    "requestBody": {
        "required": True,
        "description": "Rows, as in :predict. Each model's own are typed under its own path.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post("/{model}:explain", openapi_extra=_BODY)
async def explain(model: str, request: Request, services: Services) -> ExplainResponse:
    """Tell what each feature of each row added to the champion's answer. The body is that of :predict."""
    return await _explained(model, None, request, services)


@router.post("/{model}/versions/{version}:explain", openapi_extra=_BODY)
async def explain_version(model: str, version: str, request: Request, services: Services) -> ExplainResponse:
    """The same for one version: a number, a digest or an alias."""
    return await _explained(model, version, request, services)


@router.post("/{model}/labels/{label}:explain", openapi_extra=_BODY)
async def explain_label(model: str, label: str, request: Request, services: Services) -> ExplainResponse:
    """The same for one version, by its alias."""
    return await _explained(model, alias_of(label), request, services)


async def _explained(model: str, version: str | None, request: Request, services: InferenceServices) -> ExplainResponse:
    sent = await request.body()
    front, labels = services.front, Labels(timeout_ms=request.headers.get("modelyard-timeout-ms"))
    async with opened(sent, request.headers.get("content-encoding", ""), front, labels) as body:
        call = await front.read(partial(scoring.decode_v1, body, front.bounds.max_rows), len(body), labels)
        _only_timeout(call.parameters)
        timeout_s = front.timeout_s(labels, call.parameters.get("timeout"))
        found = await services.explain(model, version, call.rows, timeout_s)
    return _response(found)


def _only_timeout(parameters: Mapping[str, Any]) -> None:
    if other := parameters.keys() - {"timeout"}:
        raise Invalid.at("parameters", f"{min(other)[:64]!r} is for predictions; an explanation takes timeout alone")


def _response(found: Explained) -> ExplainResponse:
    return ExplainResponse(
        explanations=tuple(_row(row) for row in found.rows),
        method=found.method,
        space=found.space,
        model_name=found.model,
        model_version=str(found.number),
        digest=found.digest,
        background=Background(rows=found.background_rows),
        evaluations=found.evaluations,
    )


def _row(row: Explanation) -> RowExplanation:
    return RowExplanation(
        prediction=row.prediction,
        label=row.label,
        value=row.answer,
        base_value=row.base,
        contributions=dict(row.contributions),
        standard_errors=None if row.standard_errors is None else dict(row.standard_errors),
        additivity_error=row.additivity_error,
    )
