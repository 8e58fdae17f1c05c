"""Guards of endpoints: ``dependencies=[Depends(allow("service", "admin"))]``.

Without a guard an endpoint takes any known principal (``auth: token``); never an unknown one.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from modelyard_common.auth.principals import ANONYMOUS, Principal, Role
from modelyard_common.auth.tokens import TokenFile
from modelyard_common.errors import Denied, Unauthenticated

__all__ = ["Authenticator", "allow", "principal_of"]


class Authenticator:
    """Tells who asks, from the Authorization header.

    Args:
        tokens: None where ``auth`` is ``none``.
    """

    def __init__(self, tokens: TokenFile | None) -> None:
        self._tokens = tokens

    def authenticate(self, authorization: str | None) -> Principal:
        """Return the principal. Raise Unauthenticated without a known bearer token."""
        if self._tokens is None:
            return ANONYMOUS
        scheme, _, token = (authorization or "").partition(" ")
        principal = self._tokens.principal(token.strip()) if scheme.lower() == "bearer" and token else None
        if principal is None:
            raise Unauthenticated
        return principal


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
