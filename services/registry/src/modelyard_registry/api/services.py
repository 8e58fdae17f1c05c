"""What the endpoints work with: made by wiring, found on the application's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from modelyard_common.clock import Clock
from modelyard_common.pagination import MAX_PAGE

from modelyard_registry.api.watchers import Watchers
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.ports import Bundles, MlflowReads, Transactions
from modelyard_registry.usecases.register_version import RegisterVersion

__all__ = ["Registry", "RegistryState", "page_limit"]


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The registry's parts, for endpoints."""

    transactions: Transactions
    clock: Clock
    register_version: RegisterVersion
    bundles: Bundles
    watchers: Watchers
    proxy: MlflowReads
    heartbeat_s: float
    poll_s: float

    @contextmanager
    def act(self, actor: str) -> Iterator[Act]:
        """Open the transaction of one change; it is committed before the answer is built."""
        with self.transactions.write() as store:
            yield Act(store, actor, self.clock.now())


def _state(request: Request) -> RegistryState:
    return cast("RegistryState", request.app.state.registry)


Registry = Annotated[RegistryState, Depends(_state)]


def page_limit(limit: int) -> int:
    """Return how many items a page has."""
    return max(1, min(limit, MAX_PAGE))
