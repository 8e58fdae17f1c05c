"""What ends a run before it has a version: a sentence that a person can act on."""

from __future__ import annotations

from modelyard_common.errors import ModelyardError

__all__ = ["Cancelled", "RunFailed"]


class RunFailed(ModelyardError):
    """The run cannot go on."""


class Cancelled(BaseException):
    """The run was told to end. Not an Exception: nothing on the way may take it for a failure of its own."""
