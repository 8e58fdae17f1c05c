"""What is to be done about one model: a pure function from what is seen to actions, asked again and again.

Laws (tested): once its actions are done it gives none; it never touches ``spec``; an object that is deleted keeps its
finalizer exactly as long as the registry has the model. It knows no event: a restarted operator, two of them, or one
that slept for an hour decide the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel

from modelyard_operator.domain.observed import FINALIZER, Away, Observed
from modelyard_operator.domain.status import status_of

__all__ = ["Action", "Apply", "Delete", "SetFinalizers", "WriteStatus", "reconcile"]


@dataclass(frozen=True, slots=True)
class SetFinalizers:
    """Replace the object's finalizers."""

    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Give the policy to the registry."""

    manifest: ManagedModel


@dataclass(frozen=True, slots=True)
class Delete:
    """Have the registry delete the model; its policy says what becomes of the versions."""


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the object's status."""

    status: ManagedModelStatus


Action = SetFinalizers | Apply | Delete | WriteStatus


def reconcile(observed: Observed, now: datetime) -> tuple[Action, ...]:
    """Return what is to be done now, in this order; nothing when all is as it should be.

    The status is written when nothing else is left to do, so that it tells what became of it.
    """
    work = _retire(observed) if observed.object.deleting else _establish(observed)
    if work:
        return work
    if observed.object.deleting and FINALIZER not in observed.object.finalizers:
        return ()
    status = status_of(observed, now)
    return (WriteStatus(status),) if status != observed.object.status else ()


def _establish(observed: Observed) -> tuple[Action, ...]:
    if FINALIZER not in observed.object.finalizers:
        # Before the registry hears of the model: else it could be deleted here and stay there.
        return (SetFinalizers((*observed.object.finalizers, FINALIZER)),)
    return _apply(observed)


def _apply(observed: Observed) -> tuple[Action, ...]:
    manifest = observed.object.manifest
    if manifest is None or observed.refused or isinstance(observed.registry, Away) or observed.applied:
        return ()
    return (Apply(manifest),)


def _retire(observed: Observed) -> tuple[Action, ...]:
    if FINALIZER not in observed.object.finalizers or isinstance(observed.registry, Away):
        return ()
    if observed.registry.value is None:
        return (SetFinalizers(tuple(name for name in observed.object.finalizers if name != FINALIZER)),)
    # The policy first: it may be the deletionPolicy that was changed last.
    return (*_apply(observed), Delete())
