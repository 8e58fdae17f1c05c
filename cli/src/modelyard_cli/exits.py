"""Exit codes: one for each branch of the error tree, so that scripts can tell a typing mistake from an outage."""

from __future__ import annotations

from modelyard_common.errors import (
    Conflict,
    Denied,
    Invalid,
    ModelyardError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

__all__ = ["NothingPromoted", "RunEndedBadly", "exit_code_of"]


class RunEndedBadly(ModelyardError):
    """A run that was waited for failed."""


class NothingPromoted(ModelyardError):
    """A run that was waited for made a version, and the gates kept what serves."""


_CODES: tuple[tuple[type[ModelyardError], int], ...] = (
    (RunEndedBadly, 6),
    (NothingPromoted, 7),
    (Invalid, 2),
    (TooLarge, 2),
    (NotFound, 3),
    (Conflict, 4),
    (Denied, 4),
    (Unauthenticated, 4),
    (Unavailable, 5),
    (Overloaded, 5),
)


def exit_code_of(error: ModelyardError) -> int:
    """Return the code of an error.

    2 for wrong input, 3 for what is not there, 4 for a refusal, 5 for an outage, 6 for a run that failed, 7 for one
    whose version the gates did not let pass.
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
