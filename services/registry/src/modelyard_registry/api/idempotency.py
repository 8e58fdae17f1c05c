"""Idempotency keys for commands: asked twice with one key, done once, answered the same both times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from modelyard_common.db.idempotency import request_digest
from modelyard_contracts.base import View
from pydantic import BaseModel

from modelyard_registry.api.services import RegistryState

__all__ = ["IdempotencyKey", "once"]

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]

T = TypeVar("T", bound=View)


def once(
    registry: RegistryState,
    key: str | None,
    *,
    actor: str,
    operation: tuple[str, str],
    request: BaseModel,
    answer: type[T],
    command: Callable[..., T],
) -> T:
    """Carry out a command in one transaction, at most once for its key.

    Args:
        registry: gives the transaction.
        key: as sent by the caller; None for none.
        actor: goes into the ledger.
        operation: the command's name, and the model that it changes: keys are compared under its lock.
        request: the body; the same key with another one is refused.
        answer: the answer's type.
        command: takes the act, returns the answer.
    """
    with registry.act(actor) as act:
        if key is None:
            return command(act)
        act.store.lock_model(operation[1])
        digest = request_digest("/".join(operation), request.model_dump(mode="json"))
        known = act.store.recall(key, digest)
        if known is not None:
            return answer.model_validate(known)
        done = command(act)
        act.store.remember(key, digest, done.model_dump(mode="json"), act.now)
        return done
