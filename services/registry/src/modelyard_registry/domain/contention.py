"""Contention: which of candidate, champion and predecessors is to serve, judged on one evaluation.

Old regimes come back, so former champions stay in contention. One of them is chosen only when it passes the
gates itself, is strictly better than the champion, and strictly better than the candidate: between equals
the one that serves stays, and between candidate and predecessor the new one wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from modelyard_contracts.managed_model_v1alpha1 import GateRule, Rollout

from modelyard_registry.domain.gates import (
    Contestant,
    Evidence,
    Outcome,
    RuleResult,
    gain,
    judge,
    measure,
    passed,
)

__all__ = ["Judgement", "decide"]

Decision = Literal["promote", "promote_predecessor", "keep", "insufficient", "hold"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about a registered version, and why."""

    decision: Decision
    reason: str
    chosen: str | None = None
    """Digest of the version to roll out."""
    rules: tuple[RuleResult, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rival:
    who: Contestant
    value: float
    results: tuple[RuleResult, ...]


def decide(
    *,
    candidate: Contestant,
    champion: Contestant | None,
    contenders: Sequence[Contestant],
    gates: Sequence[GateRule],
    rollout: Rollout,
    evidence: Evidence | None,
) -> Judgement:
    """Return what follows from the evidence under the manifest's gates and promotion policy."""
    if rollout.promote == "pinned":
        return _pinned(candidate, rollout)
    results = judge(gates, candidate, champion=champion, evidence=evidence)
    rival = _best_predecessor(candidate, champion, contenders, gates, evidence)
    if rival is not None:
        prefixed = tuple(replace(result, rule=f"{rival.who.name}: {result.rule}") for result in rival.results)
        reason = f"{rival.who.name} is in contention and does best: {rival.results[0].reason}"
        return _manual(rollout, Judgement("promote_predecessor", reason, rival.who.digest, results + prefixed))
    if passed(results):
        return _manual(rollout, Judgement("promote", _why_promoted(results, champion), candidate.digest, results))
    return _kept(results, champion)


def _pinned(candidate: Contestant, rollout: Rollout) -> Judgement:
    if candidate.digest == rollout.version:
        return Judgement("promote", f"the manifest pins {candidate.name}", candidate.digest)
    return Judgement("keep", f"the manifest pins {rollout.version}; {candidate.name} is kept on record")


def _manual(rollout: Rollout, judgement: Judgement) -> Judgement:
    if rollout.promote != "manual":
        return judgement
    return replace(judgement, decision="hold", reason=f"waits for approval (promote: manual): {judgement.reason}")


def _why_promoted(results: Sequence[RuleResult], champion: Contestant | None) -> str:
    if champion is None:
        return "there is no champion yet" + ("; all gates passed" if results else "; there are no gates")
    telling = [result for result in results if result.against is not None] or list(results)
    return "; ".join(result.reason for result in telling) if telling else "there are no gates"


def _kept(results: Sequence[RuleResult], champion: Contestant | None) -> Judgement:
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    lacking = [result for result in results if result.outcome is Outcome.INSUFFICIENT]
    stays = f"{champion.name} stays champion" if champion else "there is still no champion"
    reason = "; ".join(dict.fromkeys(result.reason for result in failed or lacking))
    return Judgement("keep" if failed else "insufficient", f"{reason}; {stays}", None, tuple(results))


def _best_predecessor(
    candidate: Contestant,
    champion: Contestant | None,
    contenders: Sequence[Contestant],
    gates: Sequence[GateRule],
    evidence: Evidence | None,
) -> _Rival | None:
    """Return the predecessor to bring back, if one earns it on the metric of the first relative gate."""
    relative = next((rule for rule in gates if rule.against), None)
    if champion is None or evidence is None or relative is None:
        return None
    metric = relative.metric
    reigning = measure(champion, metric, evidence)
    new = measure(candidate, metric, evidence, may_overlap=evidence.kind == "test")
    if isinstance(reigning, str):
        return None
    best: _Rival | None = None
    for who in contenders:
        value = measure(who, metric, evidence)
        if isinstance(value, str) or who.digest in (candidate.digest, champion.digest):
            continue
        results = judge(gates, who, champion=champion, evidence=evidence, is_candidate=False)
        beats_candidate = isinstance(new, str) or gain(metric, value, new) > 0
        if not (passed(results) and gain(metric, value, reigning) > 0 and beats_candidate):
            continue
        if best is None or gain(metric, value, best.value) > 0:
            first = sorted(results, key=lambda result: result.against is None)
            best = _Rival(who, value, tuple(first))
    return best
