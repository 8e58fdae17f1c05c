"""What the services say in one round: each asked once for all models where it can be, and not again once it is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from modelyard_common.errors import ModelyardError, Overloaded, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.registry_v1 import ModelView

from modelyard_operator.domain.observed import Away, Loaded, ManagedObject, Observed, Seen
from modelyard_operator.domain.ports import Peers

__all__ = ["Sight"]

log = get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Sight:
    """One round's memory."""

    peers: Peers
    away: dict[str, str] = field(default_factory=dict)
    _models: Mapping[str, ModelView] | None = None
    _loaded: Mapping[str, Loaded] | None = None

    def of(self, one: ManagedObject, *, refused: str) -> Observed:
        """Return everything that is seen of a model."""
        name = one.name
        return Observed(
            object=one,
            registry=self._ask("registry", lambda: self._all_models().get(name)),
            run=self._ask("training", lambda: self.peers.run(name)),
            drift=self._ask("drift", lambda: self.peers.drift(name)),
            loaded=self._ask("inference", lambda: self._all_loaded().get(name)),
            refused=refused,
        )

    def lost(self, service: str, exc: ModelyardError) -> Away:
        """Note that a service is away for the rest of the round."""
        log.warning("peer.away", peer=service, kind=type(exc).__name__, reason=exc.message)
        # Words that stay the same while it is away: what exactly failed this time is in the log.
        away = isinstance(exc, Unavailable | Overloaded)
        self.away[service] = f"{service} does not answer" if away else f"{service} refuses: {exc.message}"
        return Away(self.away[service])

    def _ask(self, service: str, question: Callable[[], T | None]) -> Seen[T] | Away:
        if service in self.away:
            return Away(self.away[service])
        try:
            return Seen(question())
        except ModelyardError as exc:
            return self.lost(service, exc)

    def _all_models(self) -> Mapping[str, ModelView]:
        if self._models is None:
            self._models = self.peers.models()
        return self._models

    def _all_loaded(self) -> Mapping[str, Loaded]:
        if self._loaded is None:
            self._loaded = self.peers.loaded()
        return self._loaded
