"""Whose certificates outgoing calls believe: those of SSL_CERT_FILE or SSL_CERT_DIR, else certifi's.

httpx would read them anew for each client, 1.6 MiB and 15 ms a time, also for one that only ever speaks plain HTTP;
and told not to take proxies from the environment, it would not look there for certificates either.
"""

from __future__ import annotations

import ssl
from functools import cache

import httpx

__all__ = ["trust_for"]


def trust_for(url: str) -> ssl.SSLContext:
    """Return what a client of this address verifies certificates with; clients share it."""
    return _everybody() if httpx.URL(url).scheme == "https" else _nobody()


@cache
def _everybody() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@cache
def _nobody() -> ssl.SSLContext:
    """Return a context that believes no certificate: where plain HTTP is spoken, there is none to believe."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
