"""How a call ends: gRPC's status codes, and which error of ours is which."""

from __future__ import annotations

from enum import IntEnum

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

from modelyard_inference.domain.requests import Late

__all__ = ["FAULTS", "StatusCode", "status_of"]


class StatusCode(IntEnum):
    """As the protocol numbers them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


FAULTS = frozenset({StatusCode.DEADLINE_EXCEEDED, StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.UNKNOWN})
"""Which statuses are this server's fault, as OpenTelemetry has it."""

_CODES: dict[type[ModelyardError], StatusCode] = {
    Late: StatusCode.DEADLINE_EXCEEDED,
    Invalid: StatusCode.INVALID_ARGUMENT,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Denied: StatusCode.PERMISSION_DENIED,
    NotFound: StatusCode.NOT_FOUND,
    Conflict: StatusCode.FAILED_PRECONDITION,
    TooLarge: StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: StatusCode.UNAVAILABLE,
}


def status_of(error: ModelyardError) -> StatusCode:
    """Return the status of an error: that of the nearest class in the table, else INTERNAL."""
    found = (_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    return next(found, StatusCode.INTERNAL)
