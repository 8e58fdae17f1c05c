"""Idempotency keys: a mutation asked twice with one key happens once, and answers the same both times.

A service mixes ``IdempotencyKeys`` into one of its tables and calls ``recall`` before and ``remember`` after the
mutation, in the same transaction.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from modelyard_contracts.canonical import canonical_json
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from modelyard_common.db.session import WriteSession
from modelyard_common.db.types import JsonColumn, UtcDateTime
from modelyard_common.errors import Conflict

__all__ = ["IdempotencyKeys", "recall", "remember", "request_digest"]


class IdempotencyKeys:
    """The columns of a table of keys."""

    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    response: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    created: Mapped[datetime] = mapped_column(UtcDateTime)


def request_digest(operation: str, body: Any) -> str:
    """Return a digest over what was asked."""
    return hashlib.sha256(canonical_json([operation, body])).hexdigest()


def recall(session: WriteSession, table: type[Any], key: str, digest: str) -> dict[str, Any] | None:
    """Return the first answer to this key, or None. Raise Conflict when the key was used for something else."""
    row = session.get(table, key)
    if row is None:
        return None
    if row.request != digest:
        raise Conflict(f"the idempotency key {key!r} was used for another request; use a new one")
    answer: dict[str, Any] = row.response
    return answer


def remember(
    session: WriteSession, table: type[Any], *, key: str, digest: str, response: dict[str, Any], now: datetime
) -> None:
    """Keep the answer to this key. Raise Conflict when another request under it was faster."""
    session.flush()
    session.add(table(key=key, request=digest, response=response, created=now))
    try:
        session.flush()
    except IntegrityError as exc:
        raise Conflict(f"a request with the idempotency key {key!r} is in progress; ask again") from exc
