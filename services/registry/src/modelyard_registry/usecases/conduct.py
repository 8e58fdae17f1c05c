"""Conduct a rollout: turn the machine's decisions into states, routing revisions and ledger entries.

Every function here works within the caller's transaction on a model that the caller has locked, so that routing,
version states and the ledger never tell different stories.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Literal

from modelyard_common import context
from modelyard_contracts.registry_v1 import CandidateRoute, Route, RoutingTable

from modelyard_registry.domain import rollout as machine
from modelyard_registry.domain.rollout import Decision, Rollout, Step
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.records import Model, Version

__all__ = ["advance", "finish", "publish", "republish", "start", "stop"]

Kind = Literal["first", "new", "predecessor", "rollback", "manual"]


def start(act: Act, model: Model, version: Version, *, kind: Kind, reason: str, direct: bool = False) -> Rollout:
    """Begin a version's road to champion; a rollout that is under way is superseded.

    Without a champion, or direct, or without steps, the version is champion at once.
    """
    running = act.store.active_rollout(model.name)
    if running is not None:
        stop(act, model, running, f"superseded by {version.name}", returns=True)
    champion = act.store.champion(model.name)
    rollout = Rollout(
        id=uuid.uuid4().hex,
        model=model.name,
        candidate=version.digest,
        previous=champion.digest if champion else None,
        kind=kind if champion or kind == "rollback" else "first",
        started=act.now,
        reason=reason,
        steps=machine.plan(model.spec.rollout.steps, kind=kind, direct=direct or champion is None),
        abort_if=model.spec.rollout.abort_if,
        traceparent=context.traceparent.get(),
    )
    act.record("rollout.started", model.name, rollout.id, candidate=version.digest, kind=rollout.kind, reason=reason)
    if rollout.upcoming is None:
        return finish(act, model, rollout, Decision("complete", reason))
    act.store.save_version(replace(version, state="candidate"))
    return _enter(act, model, rollout, Decision("advance", reason))


def advance(act: Act, model: Model, rollout: Rollout, decision: Decision) -> Rollout:
    """End the live step as passed and enter the next one."""
    return _enter(act, model, rollout, decision)


def finish(act: Act, model: Model, rollout: Rollout, decision: Decision) -> Rollout:
    """Make the candidate champion."""
    done = machine.complete(rollout, decision, act.now)
    act.store.save_rollout(done)
    _record_step(act, rollout, done)
    act.record("rollout.completed", model.name, done.id, candidate=done.candidate, reason=decision.reason)
    _crown(act, model, done)
    publish(act, model)
    act.touch(model.name)
    return done


def stop(
    act: Act, model: Model, rollout: Rollout, reason: str, *, returns: bool, evidence: Decision | None = None
) -> Rollout:
    """Abort a rollout; the champion stays.

    Args:
        act: who stops it, and when.
        model: locked.
        rollout: running or paused.
        reason: in words; it goes into the ledger.
        returns: a predecessor goes back into contention, since nothing was found against it.
        evidence: the machine's decision, when it was the one to abort.
    """
    decision = evidence or Decision("abort", reason)
    done = machine.abort(rollout, decision, act.now)
    act.store.save_rollout(done)
    _record_step(act, rollout, done)
    act.record("rollout.aborted", model.name, done.id, candidate=done.candidate, reason=decision.reason)
    version = act.store.version(model.name, rollout.candidate)
    if version is not None:
        reigned = any(reign.digest == version.digest for reign in act.store.reigns(model.name))
        act.store.save_version(replace(version, state="retired" if returns and reigned else "aborted"))
    publish(act, model)
    act.touch(model.name)
    return done


def publish(
    act: Act, model: Model, step: Step | None = None, candidate: Version | None = None, *, leap: int = 1
) -> RoutingTable:
    """Put the next revision of the routing table into force."""
    before = act.store.routing(model.name)
    champion = act.store.champion(model.name)
    route = None
    if step is not None and candidate is not None:
        weight = 0 if step.shadow else step.weight
        route = CandidateRoute(number=candidate.number, digest=candidate.digest, weight=weight, shadow=step.shadow)
    table = RoutingTable(
        model=model.name,
        revision=(before.revision if before else 0) + leap,
        champion=Route(number=champion.number, digest=champion.digest) if champion and not model.deleted else None,
        candidate=route,
        log_payloads=model.spec.serve.log_payloads,
        redact=model.spec.serve.redact,
        batch_rows=model.spec.serve.batch_rows,
        replay=model.spec.monitor.replay,
        deleted=model.deleted,
        traceparent=context.traceparent.get(),
    )
    act.store.publish(table, act.now)
    return table


def republish(act: Act, model: Model, *, leap: int = 1) -> int:
    """Put the same routes into force again and return the revision; a live step is counted anew from there."""
    rollout = act.store.active_rollout(model.name)
    step = rollout.live if rollout else None
    if rollout is None or step is None:
        return publish(act, model, leap=leap).revision
    table = publish(act, model, step, act.store.version(model.name, rollout.candidate), leap=leap)
    moved = replace(step, revision=table.revision)
    steps = tuple(moved if other.index == step.index else other for other in rollout.steps)
    act.store.save_rollout(replace(rollout, steps=steps))
    return table.revision


def _enter(act: Act, model: Model, rollout: Rollout, decision: Decision) -> Rollout:
    upcoming = rollout.upcoming
    candidate = act.store.version(model.name, rollout.candidate)
    table = publish(act, model, upcoming, candidate)
    if rollout.live is None:
        entered = machine.enter(rollout, table.revision, act.now)
    else:
        entered = machine.advance(rollout, decision, table.revision, act.now)
    act.store.save_rollout(entered)
    _record_step(act, rollout, entered)
    act.touch(model.name)
    return entered


def _record_step(act: Act, before: Rollout, after: Rollout) -> None:
    """Write what changed between two states of a rollout: the step that ended, the step that began."""
    for old, new in zip(before.steps, after.steps, strict=True):
        if old.outcome == new.outcome:
            continue
        act.record(
            "rollout.step",
            after.model,
            after.id,
            index=new.index,
            shadow=new.shadow,
            weight=new.weight,
            outcome=new.outcome,
            reason=new.reason,
            revision=new.revision,
            evidence=dict(new.evidence),
        )


def _crown(act: Act, model: Model, rollout: Rollout) -> None:
    """Change the champion. One that was rolled back leaves contention: a person has judged it."""
    old = act.store.champion(model.name)
    if old is not None:
        act.store.save_version(replace(old, state="aborted" if rollout.kind == "rollback" else "retired"))
    new = act.store.version(model.name, rollout.candidate)
    if new is None:
        raise LookupError(f"version {rollout.candidate} vanished")
    act.store.save_version(replace(new, state="champion"))
    act.store.add_reign(model.name, new.digest, act.now)
    act.record(
        "champion.changed",
        model.name,
        new.digest,
        number=new.number,
        previous=old.digest if old else None,
        rollout=rollout.id,
        kind=rollout.kind,
        reason=rollout.reason,
    )
