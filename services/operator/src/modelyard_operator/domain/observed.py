"""What the operator sees of one model: the object, and what each service says of it, or that it says nothing now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.specs import spec_digest
from modelyard_contracts.training_v1 import RunView

__all__ = ["FINALIZER", "Away", "Loaded", "ManagedObject", "Observed", "Seen", "known"]

FINALIZER = "modelyard.dev/registry"
"""Keeps an object until the registry has deleted its model."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What a service says; None: it knows no such model."""

    value: T | None


@dataclass(frozen=True, slots=True)
class Away:
    """A service cannot be asked now."""

    reason: str


def known(view: Seen[T] | Away) -> T | None:
    """Return what is known now; None also when nobody can be asked."""
    return None if isinstance(view, Away) else view.value


@dataclass(frozen=True, slots=True)
class ManagedObject:
    """A ``ManagedModel`` as the API server has it."""

    name: str
    generation: int
    version: str
    """The resource version: a write that is not about this one is refused."""
    manifest: ManagedModel | None
    """None when ``spec`` is not a policy; then ``fault`` says why."""
    fault: str = ""
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    status: ManagedModelStatus = field(default_factory=ManagedModelStatus)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What inference has loaded of one model."""

    numbers: frozenset[int]
    reason: str = ""
    """Why there is nothing, when it says so."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that one decision is made from."""

    object: ManagedObject
    registry: Seen[ModelView] | Away
    """Models that are deleted are not seen."""
    run: Seen[RunView] | Away
    """The newest."""
    drift: Seen[DriftStatus] | Away
    loaded: Seen[Loaded] | Away
    refused: str = ""
    """What the registry said when this very policy was last given to it, if it refused."""

    @property
    def fault(self) -> str:
        """Why the policy is not in force and will not be until somebody changes it; empty when that is not so."""
        return self.object.fault or self.refused

    @property
    def applied(self) -> bool:
        """Whether the registry has exactly this policy."""
        model, manifest = known(self.registry), self.object.manifest
        return model is not None and manifest is not None and model.spec_digest == str(spec_digest(manifest.spec))

    @property
    def champion(self) -> int | None:
        """The number of the version that answers."""
        model = known(self.registry)
        return model.champion.number if model is not None and model.champion is not None else None
