"""Command a rollout by hand: pause, resume, abort."""

from __future__ import annotations

from modelyard_common.errors import Conflict

from modelyard_registry.domain import rollout as machine
from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act

__all__ = ["abort_rollout", "pause_rollout", "resume_rollout"]


def pause_rollout(act: Act, name: str, reason: str) -> Rollout:
    """Keep the rollout where it is: the candidate keeps its share, no step is taken. Idempotent."""
    act.lock(name)
    rollout = _active(act, name)
    if rollout.state == "paused":
        return rollout
    return _keep(act, machine.pause(rollout), "rollout.paused", reason)


def resume_rollout(act: Act, name: str, reason: str) -> Rollout:
    """Go on where the rollout was paused. Idempotent."""
    act.lock(name)
    rollout = _active(act, name)
    if rollout.state == "running":
        return rollout
    return _keep(act, machine.resume(rollout), "rollout.resumed", reason)


def abort_rollout(act: Act, name: str, reason: str) -> Rollout:
    """End the rollout; the champion stays."""
    model = act.lock(name)
    return conduct.stop(act, model, _active(act, name), reason or f"aborted by {act.actor}", returns=True)


def _keep(act: Act, rollout: Rollout, kind: str, reason: str) -> Rollout:
    act.store.save_rollout(rollout)
    act.record(kind, rollout.model, rollout.id, reason=reason)
    act.touch(rollout.model)
    return rollout


def _active(act: Act, name: str) -> Rollout:
    rollout = act.store.active_rollout(name)
    if rollout is None:
        raise Conflict(f"model {name!r} has no rollout under way")
    return rollout
