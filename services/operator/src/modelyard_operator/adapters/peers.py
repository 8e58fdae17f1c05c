"""The platform's services through their typed clients: the same calls that a person makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard_client import DriftClient, InferenceClient, RegistryClient, TrainingClient
from modelyard_common.errors import NotFound
from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.training_v1 import RunView

from modelyard_operator.domain.observed import Loaded

__all__ = ["ServicePeers"]

_READY = "READY"


@dataclass(frozen=True, slots=True)
class ServicePeers:
    """Registry, training, drift and inference."""

    registry: RegistryClient
    training: TrainingClient
    drift_client: DriftClient
    inference: InferenceClient

    def models(self) -> Mapping[str, ModelView]:
        """Return all models; see the port."""
        return {model.name: model for model in self.registry.models() if not model.deleted}

    def apply(self, manifest: ManagedModel) -> ModelView:
        """Make a manifest the model's policy; see the port."""
        return self.registry.apply(manifest)

    def delete(self, name: str) -> None:
        """Delete a model; see the port."""
        try:
            self.registry.delete(name)
        except NotFound:
            return

    def run(self, name: str) -> RunView | None:
        """Return a model's newest run; see the port."""
        return self.training.latest_run(name)

    def drift(self, name: str) -> DriftStatus | None:
        """Return where drift stands; see the port."""
        try:
            return self.drift_client.status(name)
        except NotFound:
            return None

    def loaded(self) -> Mapping[str, Loaded]:
        """Return what inference has loaded; see the port."""
        numbers: dict[str, set[int]] = {}
        reasons: dict[str, str] = {}
        for entry in self.inference.index():
            found = numbers.setdefault(entry.name, set())
            if entry.state == _READY and entry.version.isdigit():
                found.add(int(entry.version))
            elif entry.reason:
                reasons[entry.name] = entry.reason
        return {name: Loaded(frozenset(found), reasons.get(name, "")) for name, found in numbers.items()}

    def close(self) -> None:
        """Close all connections."""
        for client in (self.registry, self.training, self.drift_client, self.inference):
            client.close()
