"""Bearer tokens from a mounted file, kept hashed: ``name role sha256-hex`` a line, ``#`` starts a comment.

The file is read again when it changes, so that a rotated secret needs no restart. While it is gone or wrong the
tokens known before stay valid, and the log says so: half a rotation locks nobody out. The comparison takes the same
time for every wrong token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from pathlib import Path
from typing import cast

from modelyard_common.auth.principals import ROLES, Principal, Role
from modelyard_common.errors import Invalid
from modelyard_common.logs import get_logger

__all__ = ["TokenFile", "hash_token", "parse_tokens"]

_log = get_logger(__name__)


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
        if len(words) != 3 or words[1] not in ROLES or not re.fullmatch(r"[0-9a-f]{64}", words[2].lower()):
            raise Invalid(
                f"tokens file, line {number}: write `name role sha256-hex`; roles: {', '.join(sorted(ROLES))}"
            )
        principals[words[2].lower()] = Principal(words[0], cast(Role, words[1]))
    return principals


class TokenFile:
    """Knows the principals of a file. Raises Invalid when it cannot be read at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = self._look()
        if self._stamp is None:
            raise Invalid(f"the tokens file {path} cannot be read")
        self._principals = parse_tokens(path.read_text())

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
        stamp = self._look()
        with self._lock:
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._principals = parse_tokens(self._path.read_text())
            except (OSError, ValueError, Invalid) as exc:
                _log.error("tokens.kept", path=str(self._path), reason=f"{type(exc).__name__}: {exc}")

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None when there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
