"""What ends a run before it has a version: a sentence that a person can act on."""

from __future__ import annotations

from modelyard_common.errors import ModelyardError

__all__ = ["Cancelled", "RunFailed"]


class RunFailed(ModelyardError):
    """The run cannot go on."""


class Cancelled(ModelyardError):
    """The run was told to end."""
