"""What the operator needs from outside: the objects of a namespace, the platform's services, one lease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.training_v1 import RunView

from modelyard_operator.domain.lease import Lease
from modelyard_operator.domain.observed import Loaded, ManagedObject

__all__ = ["Change", "Leases", "Objects", "Peers"]


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to an object; whether it matters is told from its mark."""

    version: str
    """Of the collection: from here the next watch goes on."""
    name: str
    mark: tuple[int, bool] | None
    """Generation and whether it is being deleted; None when it is gone. Status writes do not change it."""


class Objects(Protocol):
    """The ``ManagedModel`` objects of one namespace. There is no way to write their ``spec``.

    Every write is about the version of the object that is handed over: raise Conflict when that is not the newest,
    NotFound when it is gone, Unavailable when the cluster is away.
    """

    def all(self) -> Sequence[ManagedObject]:
        """Return all objects."""

    def changes(self, since: str | None) -> Iterator[Change]:
        """Yield what happens after a version of the collection (None: now), for a few seconds.

        Raises:
            Conflict: that version is forgotten.
        """

    def set_finalizers(self, found: ManagedObject, finalizers: tuple[str, ...]) -> ManagedObject:
        """Replace the finalizers of an object."""

    def write_status(self, found: ManagedObject, status: ManagedModelStatus) -> ManagedObject:
        """Replace the status of an object."""


class Peers(Protocol):
    """The platform's services. Every call raises a ModelyardError as the case is."""

    def models(self) -> Mapping[str, ModelView]:
        """Return all models that are not deleted, by name."""

    def apply(self, manifest: ManagedModel) -> ModelView:
        """Make a manifest the model's policy."""

    def delete(self, name: str) -> None:
        """Delete a model; one that is not there is deleted."""

    def run(self, name: str) -> RunView | None:
        """Return a model's newest run."""

    def drift(self, name: str) -> DriftStatus | None:
        """Return where drift stands for a model; None when it does not know it."""

    def loaded(self) -> Mapping[str, Loaded]:
        """Return what inference has loaded, by model."""


class Leases(Protocol):
    """One lease."""

    def read(self) -> Lease | None:
        """Return the lease; None when nobody ever had it."""

    def write(self, lease: Lease) -> Lease:
        """Create or replace the lease, about the version handed over; raise Conflict when another one is newer."""
