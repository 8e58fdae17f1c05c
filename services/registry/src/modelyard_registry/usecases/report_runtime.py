"""Hear from inference: it serves a version, refuses it, or has stopped sending it requests."""

from __future__ import annotations

from modelyard_contracts.registry_v1 import RuntimeReport

from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.records import Report

__all__ = ["report_runtime"]


def report_runtime(act: Act, name: str, request: RuntimeReport) -> None:
    """Keep the report; a candidate that is refused, or that tripped, is rolled back to the champion.

    A report about an earlier rollout (an older revision) is kept, and aborts nothing.
    """
    model = act.lock(name)
    last = act.store.report(name, request.instance)
    report = Report(
        model=name,
        instance=request.instance,
        digest=request.digest,
        revision=request.revision,
        outcome=request.outcome,
        reason=request.reason,
        at=act.now,
    )
    act.store.save_report(report)
    if request.outcome == "serving" or (last is not None and _same(last, report)):
        return
    words = f"{request.outcome} by {request.instance}: {request.reason or 'no reason given'}"
    act.record(f"runtime.{request.outcome}", name, request.digest, instance=request.instance, reason=request.reason)
    rollout = act.store.active_rollout(name)
    if rollout is not None and rollout.candidate == request.digest and request.revision >= _first_revision(rollout):
        conduct.stop(act, model, rollout, words, returns=False)


def _same(last: Report, new: Report) -> bool:
    return (last.digest, last.revision, last.outcome, last.reason) == (
        new.digest,
        new.revision,
        new.outcome,
        new.reason,
    )


def _first_revision(rollout: Rollout) -> int:
    return min((step.revision for step in rollout.steps if step.revision is not None), default=0)
