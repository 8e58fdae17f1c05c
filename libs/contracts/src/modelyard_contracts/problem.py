"""Errors on the wire: RFC 9457 problem documents, the same from every service."""

from __future__ import annotations

from modelyard_contracts.base import View

__all__ = ["PROBLEM_MEDIA_TYPE", "FieldError", "Problem"]

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(View):
    """One wrong field: where it is, what is wrong, and how to mend it."""

    path: str
    """The field as a person writes it, for example ``spec.gate[0].metric``."""
    message: str


class Problem(View):
    """A problem document (RFC 9457 §3)."""

    type: str = "about:blank"
    """A stable name of the kind of error, for example ``urn:modelyard:conflict``."""
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    request_id: str | None = None
    errors: tuple[FieldError, ...] = ()
