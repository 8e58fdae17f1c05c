"""The only table from the tree of errors to HTTP statuses, and the way back in the client."""

from __future__ import annotations

from modelyard_contracts.problem import Problem

from modelyard_common import errors

__all__ = ["error_from", "problem_from", "status_of"]

_STATUSES: dict[type[errors.ModelyardError], int] = {
    errors.Invalid: 422,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
}
_ERRORS: dict[int, type[errors.ModelyardError]] = {status: kind for kind, status in _STATUSES.items()} | {
    400: errors.Invalid,
    405: errors.Invalid,
    415: errors.Invalid,
    502: errors.Unavailable,
    504: errors.Unavailable,
}


def status_of(error: errors.ModelyardError) -> int:
    """Return the HTTP status of an error: that of the nearest class in the table, else 500."""
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 500)


def problem_from(error: errors.ModelyardError, *, request_id: str | None = None) -> Problem:
    """Return the problem document of an error."""
    kind = next((kind for kind in type(error).__mro__ if kind in _STATUSES), errors.ModelyardError)
    return Problem(
        type=f"urn:modelyard:{kind.__name__.lower()}",
        title=(kind.__doc__ or "").strip().splitlines()[0],
        status=status_of(error),
        detail=error.message,
        request_id=request_id,
        errors=error.errors,
    )


def error_from(problem: Problem, *, retry_after_s: float | None = None) -> errors.ModelyardError:
    """Return the error that a problem document speaks of. Law: the class survives the round trip."""
    kind = _ERRORS.get(problem.status, errors.ModelyardError if problem.status < 500 else errors.Unavailable)
    message = problem.detail or problem.title
    if kind is errors.Overloaded:
        return errors.Overloaded(message, errors=problem.errors, retry_after_s=retry_after_s)
    if kind is errors.Unavailable:
        return errors.Unavailable(message, errors=problem.errors, retry_after_s=retry_after_s)
    return kind(message, errors=problem.errors)
