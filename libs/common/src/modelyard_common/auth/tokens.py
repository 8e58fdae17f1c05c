"""Bearer tokens from a mounted file, kept hashed: ``name role sha256-hex`` a line, ``#`` starts a comment.

The file is read again when it changes, so that a rotated secret needs no restart. The comparison takes the
same time for every wrong token.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from pathlib import Path
from typing import cast

from modelyard_common.auth.principals import ROLES, Principal, Role
from modelyard_common.errors import Invalid

__all__ = ["TokenFile", "hash_token", "parse_tokens"]


def hash_token(token: str) -> str:
    """Return what the file holds for a token: SHA-256, hexadecimal. Tokens are random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def parse_tokens(text: str) -> dict[str, Principal]:
    """Return principals by hash. Raise Invalid naming the line that is wrong."""
    principals: dict[str, Principal] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or words[1] not in ROLES or len(words[2]) != 64:
            raise Invalid(
                f"tokens file, line {number}: write `name role sha256-hex`; roles: {', '.join(sorted(ROLES))}"
            )
        principals[words[2]] = Principal(words[0], cast(Role, words[1]))
    return principals


class TokenFile:
    """Knows the principals of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._principals: dict[str, Principal] = {}
        self._refresh()

    def principal(self, token: str) -> Principal | None:
        """Return who a token belongs to, or None."""
        self._refresh()
        offered = hash_token(token)
        found: Principal | None = None
        for known, principal in self._principals.items():
            if hmac.compare_digest(known, offered):
                found = principal
        return found

    def _refresh(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        with self._lock:
            if stamp != self._stamp:
                self._principals = parse_tokens(self._path.read_text())
                self._stamp = stamp
