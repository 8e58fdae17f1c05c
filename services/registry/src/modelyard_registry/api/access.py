"""Who may do what: everybody known reads; services and admins change things. Both give the actor's name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from modelyard_common.auth.guards import allow

__all__ = ["Reading", "Writing"]

_reads = allow("client", "service", "admin")
_writes = allow("service", "admin")


def _reader(request: Request) -> str:
    return _reads(request).name


def _writer(request: Request) -> str:
    return _writes(request).name


Reading = Annotated[str, Depends(_reader)]
"""Guards a read; the name of whoever asks."""

Writing = Annotated[str, Depends(_writer)]
"""Guards a change; the name that goes into the ledger."""
