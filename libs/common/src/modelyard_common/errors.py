"""The one tree of errors. Use cases raise these; HTTP statuses and exit codes are given to them at the edges.

::

    ModelyardError
    ├── Invalid            the input is wrong; ``errors`` names each field
    ├── Unauthenticated    nobody said who they are
    ├── Denied             whoever it is may not do this
    ├── NotFound
    ├── Conflict           the state forbids it, or an idempotency key is used twice
    ├── TooLarge           over a stated bound
    ├── Overloaded         a bound on work in progress is reached; try again later
    └── Unavailable        something outside is away; try again later
"""

from __future__ import annotations

from typing import Self

from modelyard_contracts.problem import FieldError

__all__ = [
    "Conflict",
    "Denied",
    "Invalid",
    "ModelyardError",
    "NotFound",
    "Overloaded",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
]


class ModelyardError(Exception):
    """Something went wrong that a caller can be told about."""

    def __init__(self, message: str = "", *, errors: tuple[FieldError, ...] = ()) -> None:
        self.message = _writable(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.errors = errors
        super().__init__(self.message)


class Invalid(ModelyardError):
    """The input is wrong."""

    @classmethod
    def at(cls, path: str, message: str) -> Self:
        """Return the error about one wrong field."""
        path, message = _writable(path), _writable(message)
        return cls(f"{path}: {message}", errors=(FieldError(path=path, message=message),))


class Unauthenticated(ModelyardError):
    """Send a bearer token: Authorization: Bearer <token>."""


class Denied(ModelyardError):
    """This principal may not do this."""


class NotFound(ModelyardError):
    """There is no such thing."""


class Conflict(ModelyardError):
    """The present state does not allow this."""


class TooLarge(ModelyardError):
    """The input is larger than the bound."""


class _Later(ModelyardError):
    def __init__(
        self, message: str = "", *, errors: tuple[FieldError, ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, errors=errors)
        self.retry_after_s = retry_after_s


class Overloaded(_Later):
    """There is too much work in progress; try again later."""


class Unavailable(_Later):
    """Something that this depends on is away; try again later."""


def _writable(text: str) -> str:
    """Return a text as it can be sent: half of a surrogate pair, which somebody may have sent us, is no character."""
    return text.encode(errors="replace").decode()
