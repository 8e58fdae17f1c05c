"""Errors in OpenAPI: the form that each protocol gives them. Which there are is what the server does, and grows."""

from __future__ import annotations

from typing import Any

from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE

__all__ = ["Responses", "problems", "scoring_errors", "v1_errors", "v2_errors"]

Responses = dict[int | str, dict[str, Any]]

_TEXT = {"type": "string"}
_JSON = "application/json"


def v2_errors() -> Responses:
    """Return how the Open Inference Protocol writes an error."""
    fields = {"error": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}
    return _others("An error of the Open Inference Protocol.", {_JSON: _schema("error", **fields)})


def v1_errors() -> Responses:
    """Return how V1 writes an error; what ends before ``GET /`` begins, such as auth, is a problem document."""
    return _others("An error.", {_JSON: _schema("error", error=_TEXT), PROBLEM_MEDIA_TYPE: _PROBLEM})


def scoring_errors() -> Responses:
    """Return how MLflow's scoring server writes an error; about content types it speaks in plain text."""
    fields = {"error_code": _TEXT, "message": _TEXT}
    said = {_JSON: _schema("error_code", "message", **fields), "text/plain": {"schema": _TEXT}}
    return _others("An error of MLflow's scoring protocol.", said)


def problems() -> Responses:
    """Return how everything else writes an error."""
    return _others("A problem document (RFC 9457).", {PROBLEM_MEDIA_TYPE: _PROBLEM})


def _others(description: str, content: dict[str, Any]) -> Responses:
    return {"default": {"description": description, "content": content}}


def _schema(*required: str, **properties: Any) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": list(required), "properties": properties}}


_PROBLEM = _schema("title", "status", title=_TEXT, status={"type": "integer"}, detail=_TEXT)
