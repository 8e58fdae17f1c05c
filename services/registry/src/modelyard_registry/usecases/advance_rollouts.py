"""Advance the rollouts that are under way, on drift's evidence. Run again and again by a task.

The evidence is fetched outside of any transaction; the rollout is read again under its model's lock before anything
changes, so that a decision never rests on a step that has ended in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError, NotFound, Unavailable
from modelyard_common.tracing import span

from modelyard_registry.domain.rollout import Decision, Rollout, decide
from modelyard_registry.domain.signals import Comparison
from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.ports import EvidenceSource, Transactions

__all__ = ["ACTOR", "AdvanceRollouts"]

ACTOR = "registry"
"""Who is named in the ledger for what the machine decides."""


@dataclass(frozen=True, slots=True)
class AdvanceRollouts:
    """Ask for evidence, decide, act."""

    transactions: Transactions
    evidence: EvidenceSource
    clock: Clock

    def __call__(self) -> int:
        """Look at every rollout under way once; return how many took a step or ended."""
        with self.transactions.read() as reader:
            rollouts = [rollout for rollout in reader.active_rollouts() if rollout.state == "running"]
        return sum(self._look(rollout) for rollout in rollouts)

    def _look(self, rollout: Rollout) -> bool:
        step = rollout.live
        if step is None or step.revision is None:
            return False
        comparison, absent = self._fetch(rollout.model, step.revision)
        decision = decide(rollout, comparison, self.clock.now(), absent=absent)
        if decision.action == "wait" and decision.reason == rollout.waiting_for:
            return False
        if decision.action == "wait":
            return self._act(rollout, decision)
        attributes = {"modelyard.model": rollout.model, "modelyard.decision": decision.action}
        with span("advance rollout", parent=rollout.traceparent, attributes=attributes):
            return self._act(rollout, decision)

    def _act(self, rollout: Rollout, decision: Decision) -> bool:
        with self.transactions.write() as store:
            return _act_on(Act(store, ACTOR, self.clock.now()), rollout, decision)

    def _fetch(self, model: str, revision: int) -> tuple[Comparison | None, str]:
        try:
            return self.evidence.comparison(model, revision), ""
        except NotFound:
            return None, "the first answers: drift does not know the model yet"
        except Unavailable as exc:
            return None, f"drift, which cannot be reached: {exc}"
        except ModelyardError as exc:
            return None, f"drift, which answered: {exc}"


def _act_on(act: Act, seen: Rollout, decision: Decision) -> bool:
    model = act.store.lock_model(seen.model)
    rollout = act.store.active_rollout(seen.model)
    if model is None or model.deleted or rollout is None or rollout.live != seen.live or rollout.state != seen.state:
        return False
    if model.spec.paused and decision.action in ("advance", "complete"):
        decision = replace(decision, action="wait", reason="the model to be unpaused (spec.paused)")
    if decision.action == "wait":
        act.store.save_rollout(replace(rollout, waiting_for=decision.reason))
        return False
    if decision.action == "advance":
        conduct.advance(act, model, rollout, decision)
    elif decision.action == "complete":
        conduct.finish(act, model, rollout, decision)
    else:
        conduct.stop(act, model, rollout, decision.reason, returns=False, evidence=decision)
    return True
