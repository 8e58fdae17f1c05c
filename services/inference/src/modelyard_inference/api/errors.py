"""Errors as each protocol writes them. Statuses come from the one table, save where every protocol says otherwise.

A V2 error carries the fields of a problem document beside ``error``: V2 clients read the one, ours the other.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from modelyard_common import context
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.problems import problem_from, status_of

from modelyard_inference.domain.binding import Misfit
from modelyard_inference.domain.requests import Late

__all__ = [
    "ErrorBody",
    "UnsupportedMedia",
    "WrongMethod",
    "edge_error",
    "protocol_status",
    "retry_after",
    "scoring_error",
    "v1_error",
    "v2_error",
]

_JSON = "application/json"
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    409: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}


class UnsupportedMedia(Invalid):
    """The body is of a kind that is not read here."""


class WrongMethod(Invalid):
    """Only POST is taken here."""


class ErrorBody(NamedTuple):
    """An error's body and its media type."""

    content: bytes
    media_type: str = _JSON


def protocol_status(error: ModelyardError) -> int:
    """Return the HTTP status of an error in all inference protocols."""
    if isinstance(error, UnsupportedMedia):
        return 415
    if isinstance(error, WrongMethod):
        return 405
    if isinstance(error, Late):
        return 504
    return 400 if isinstance(error, Invalid) else status_of(error)


def retry_after(error: ModelyardError) -> str | None:
    """Return when to try again, in seconds, for errors that pass."""
    if protocol_status(error) not in (429, 503, 504):
        return None
    return str(max(1, round(getattr(error, "retry_after_s", None) or 1)))


def v2_error(error: ModelyardError) -> ErrorBody:
    """Return the body of a V2 error."""
    problem = problem_from(error, request_id=context.request_id.get()).model_dump(mode="json", exclude_none=True)
    return ErrorBody(msgspec.json.encode({"error": error.message, **problem, "status": protocol_status(error)}))


def v1_error(error: ModelyardError) -> ErrorBody:
    """Return the body of an error of the V1 protocol, which is TensorFlow Serving's."""
    return ErrorBody(msgspec.json.encode({"error": error.message}))


def scoring_error(error: ModelyardError) -> ErrorBody:
    """Return the body of an MLflow error; about content types MLflow's server speaks in plain text.

    What does not fit the model's signature has a code of its own there, unlike what cannot be read.
    """
    if isinstance(error, UnsupportedMedia):
        return ErrorBody(error.message.encode(), "text/plain; charset=utf-8")
    code = _CODES.get(protocol_status(error), "INTERNAL_ERROR")
    if isinstance(error, Misfit):
        code = "INVALID_PARAMETER_VALUE"
    return ErrorBody(msgspec.json.encode({"error_code": code, "message": error.message}))


def edge_error(path: str, error: ModelyardError) -> ErrorBody | None:
    """Return an error as the protocol of a path writes it, for what ends before the protocol begins, such as auth."""
    if path == "/v2" or path.startswith("/v2/"):
        return v2_error(error)
    path = path.removesuffix("/")
    if path.endswith("/invocations"):
        return scoring_error(error)
    return v1_error(error) if path == "/v1/models" or path.startswith("/v1/models/") else None
