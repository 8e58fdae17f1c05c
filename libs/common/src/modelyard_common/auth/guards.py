"""Guards of endpoints: ``dependencies=[Depends(allow("service", "admin"))]``.

Without a guard an endpoint takes any known principal (``auth: token``); never an unknown one.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from modelyard_common.auth.principals import Principal, Role
from modelyard_common.errors import Denied

__all__ = ["allow", "principal_of"]


def principal_of(request: Request) -> Principal:
    """Return who made a request."""
    principal: Principal = request.scope["modelyard.principal"]
    return principal


def allow(*roles: Role) -> Callable[[Request], Principal]:
    """Return a dependency that lets only these roles pass."""

    def guard(request: Request) -> Principal:
        principal = principal_of(request)
        if principal.role not in roles:
            raise Denied(f"{principal.name} has the role {principal.role}; this takes {' or '.join(roles)}")
        return principal

    return guard
