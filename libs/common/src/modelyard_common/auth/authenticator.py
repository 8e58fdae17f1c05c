"""Tells who asks: the bearer token of a request, among those that the platform knows."""

from __future__ import annotations

from modelyard_common.auth.principals import ANONYMOUS, Principal
from modelyard_common.auth.tokens import TokenFile
from modelyard_common.errors import Unauthenticated
from modelyard_common.settings import ServiceSettings

__all__ = ["Authenticator", "authenticator_for"]


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


def authenticator_for(settings: ServiceSettings) -> Authenticator:
    """Return what tells who asks a service that is set up so."""
    return Authenticator(TokenFile(settings.tokens_file) if settings.auth == "token" and settings.tokens_file else None)
