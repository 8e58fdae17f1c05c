"""Look round: bring every object of the namespace and what the services have together, once.

All that a round knows it asks for itself, so that nothing is lost when an event is. A service that is away is asked
once a round and not once a model. A model that fails does not keep the others waiting; a cluster that is away ends the
round, and whoever calls tries again after a bounded while. One policy that the registry refused is given to it again
after a growing while, since what it missed (a version that is pinned) may have come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from modelyard_common.clock import Clock
from modelyard_common.errors import (
    Conflict,
    Denied,
    ModelyardError,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from modelyard_common.logs import get_logger
from modelyard_common.tracing import span
from modelyard_contracts.specs import spec_digest

from modelyard_operator.domain.observed import Away, ManagedObject, Observed, Seen
from modelyard_operator.domain.ports import Objects, Peers
from modelyard_operator.domain.reconcile import Action, Apply, Delete, SetFinalizers, WriteStatus, reconcile
from modelyard_operator.usecases.sight import Sight

__all__ = ["LookRound"]

log = get_logger(__name__)

# Finalizer, policy, status: the third look finds nothing; more would be two parties that undo each other.
_MOST_LOOKS = 5
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0
_LATER = (Unavailable, Overloaded)
# Nothing that a change of the spec could mend: the service does not answer us, or not our token.
_NO_ANSWER = (Unavailable, Overloaded, Denied, Unauthenticated)


@dataclass(frozen=True, slots=True)
class _Refusal:
    digest: str
    message: str
    wait_s: float
    until: float


@dataclass(slots=True)
class LookRound:
    """One round after another; what it remembers between them is only when to try again."""

    objects: Objects
    peers: Peers
    clock: Clock
    leads: Callable[[], bool]
    done: Callable[[Action], None]
    """Told of every action that was carried out."""
    failed: Callable[[str], None]
    """Told of every object that could not be brought on."""
    listed: float | None = None
    """When (seconds, monotonic) the objects were last seen."""
    away: dict[str, str] = field(default_factory=dict)
    """Which services were away in the last round, and what they said."""
    _refusals: dict[str, _Refusal] = field(default_factory=dict)

    def __call__(self) -> None:
        """Take one round; raise Unavailable when the cluster is away."""
        found = self.objects.all()
        self.listed = self.clock.monotonic()
        names = {one.name for one in found}
        self._refusals = {name: kept for name, kept in self._refusals.items() if name in names}
        sight = Sight(self.peers)
        for one in found:
            if not self.leads():
                return
            try:
                self._bring(one, sight)
            except (Conflict, NotFound) as exc:
                log.info("object.changed_meanwhile", model=one.name, reason=exc.message)
            except _LATER:
                raise
            except ModelyardError as exc:
                self.failed(one.name)
                log.warning("object.failed", model=one.name, kind=type(exc).__name__, reason=exc.message)
        if found:  # without a model nobody was asked
            self.away = sight.away

    def _bring(self, one: ManagedObject, sight: Sight) -> None:
        observed = sight.of(one, refused=self._refused(one))
        for _ in range(_MOST_LOOKS):
            actions = reconcile(observed, self.clock.now())
            if not actions:
                return
            for action in actions:
                observed = self._perform(observed, action, sight)
        log.warning("object.restless", model=one.name)

    def _perform(self, observed: Observed, action: Action, sight: Sight) -> Observed:
        """Carry an action out; return what is seen after it."""
        match action:
            case SetFinalizers():
                after = replace(observed, object=self.objects.set_finalizers(observed.object, action.finalizers))
            case WriteStatus():
                after = replace(observed, object=self.objects.write_status(observed.object, action.status))
            case Apply():
                with span("apply model", attributes={"modelyard.model": observed.object.name}):
                    return self._apply(observed, action, sight)
            case Delete():
                with span("delete model", attributes={"modelyard.model": observed.object.name}):
                    return self._delete(observed, action, sight)
        self.done(action)
        return after

    def _apply(self, observed: Observed, action: Apply, sight: Sight) -> Observed:
        name = observed.object.name
        try:
            model = self.peers.apply(action.manifest)
        except _NO_ANSWER as exc:
            return replace(observed, registry=sight.lost("registry", exc))
        except ModelyardError as exc:
            return replace(observed, refused=self._refuse(observed.object, _words(exc)))
        after = replace(observed, registry=Seen(model))
        if not after.applied:
            mixed = "the registry keeps another policy than it was given: its version and the operator's differ"
            return replace(observed, refused=self._refuse(observed.object, mixed))
        self._refusals.pop(name, None)
        self.done(action)
        log.info("model.applied", model=name, generation=observed.object.generation)
        return after

    def _delete(self, observed: Observed, action: Delete, sight: Sight) -> Observed:
        if isinstance(observed.registry, Away):
            return observed
        try:
            self.peers.delete(observed.object.name)
        except _NO_ANSWER as exc:
            return replace(observed, registry=sight.lost("registry", exc))
        except ModelyardError as exc:
            # Of this model alone; the object stays and says so.
            return replace(observed, registry=Away(f"the registry keeps it: {_words(exc)}"))
        self.done(action)
        log.info("model.deleted", model=observed.object.name)
        return replace(observed, registry=Seen(None))

    def _refused(self, one: ManagedObject) -> str:
        kept = self._refusals.get(one.name)
        if kept is None or kept.digest != _digest(one) or self.clock.monotonic() >= kept.until:
            return ""
        return kept.message

    def _refuse(self, one: ManagedObject, message: str) -> str:
        kept, digest = self._refusals.get(one.name), _digest(one)
        wait_s = min(kept.wait_s * 2, _LONGEST_WAIT_S) if kept and kept.digest == digest else _FIRST_WAIT_S
        self._refusals[one.name] = _Refusal(digest, message, wait_s, self.clock.monotonic() + wait_s)
        log.warning("model.refused", model=one.name, reason=message)
        return message


def _digest(one: ManagedObject) -> str:
    return str(spec_digest(one.manifest.spec)) if one.manifest is not None else ""


def _words(exc: ModelyardError) -> str:
    fields = "; ".join(f"{error.path}: {error.message}" for error in exc.errors)
    return f"{exc.message}: {fields}" if fields else exc.message
