"""Judge a version on its Evaluation, and begin what follows: a rollout, a wait for approval, or nothing."""

from __future__ import annotations

import uuid
from dataclasses import replace

from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.registry_v1 import RuleVerdict, Verdict, VersionState

from modelyard_registry.domain.contention import Judgement, decide
from modelyard_registry.domain.gates import Contestant, Evidence
from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.records import Model, Promotion, Version

__all__ = ["judge_version"]


def judge_version(act: Act, model: Model, version: Version) -> Version:
    """Return the version with its verdict; what the verdict asks for has begun."""
    champion = act.store.champion(model.name)
    judgement = decide(
        candidate=_contestant(version),
        champion=_contestant(champion) if champion else None,
        contenders=[_contestant(other) for other in act.store.contenders(model.name, model.spec.rollout.contenders)],
        gates=model.spec.gate,
        rollout=model.spec.rollout,
        evidence=_evidence(version.evaluation) if version.evaluation else None,
    )
    verdict = _verdict(judgement)
    judged = replace(version, verdict=verdict, state=_state(judgement, version))
    act.store.save_version(judged)
    act.record(
        "version.judged",
        model.name,
        version.digest,
        number=version.number,
        verdict=verdict.model_dump(mode="json"),
        evaluation=_summary(version.evaluation),
    )
    _begin(act, model, judgement)
    act.touch(model.name)
    return act.store.version(model.name, version.digest) or judged


def _begin(act: Act, model: Model, judgement: Judgement) -> None:
    chosen = act.store.version(model.name, judgement.chosen) if judgement.chosen else None
    if chosen is None:
        return
    by_rival = judgement.decision == "promote_predecessor" or chosen.state == "retired"
    if judgement.decision == "hold":
        promotion = Promotion(
            id=uuid.uuid4().hex,
            model=model.name,
            version=chosen.digest,
            state="pending",
            reason=judgement.reason,
            created=act.now,
            kind="predecessor" if by_rival else "new",
        )
        act.store.save_promotion(promotion)
        act.record("promotion.requested", model.name, promotion.id, version=chosen.digest, reason=judgement.reason)
        return
    running = act.store.active_rollout(model.name)
    if running is not None and running.candidate == chosen.digest:
        return
    conduct.start(act, model, chosen, kind="predecessor" if by_rival else "new", reason=judgement.reason)


def _state(judgement: Judgement, version: Version) -> VersionState:
    """Return the state of the judged version itself; a rollout moves it on."""
    return "registered" if judgement.chosen == version.digest else "refused"


def _contestant(version: Version) -> Contestant:
    return Contestant(version.digest, version.name, version.data_until)


def _evidence(evaluation: Evaluation) -> Evidence:
    return Evidence(
        kind=evaluation.kind,
        rows=evaluation.rows,
        rows_from=evaluation.rows_from,
        values={
            score.digest: {metric: value.value for metric, value in score.metrics.items()}
            for score in evaluation.scores
        },
        skipped=evaluation.skipped,
        insufficient=evaluation.insufficient,
    )


def _verdict(judgement: Judgement) -> Verdict:
    return Verdict(
        decision=judgement.decision,
        reason=judgement.reason,
        chosen=judgement.chosen,
        rules=tuple(
            RuleVerdict(
                rule=rule.rule,
                outcome=rule.outcome.value,
                reason=rule.reason,
                observed=rule.observed,
                against=rule.against,
            )
            for rule in judgement.rules
        ),
    )


def _summary(evaluation: Evaluation | None) -> dict[str, object] | None:
    """Return what identifies an evaluation; its numbers are in the verdict and with the version."""
    if evaluation is None:
        return None
    return {
        "run": evaluation.run,
        "kind": evaluation.kind,
        "rows": evaluation.rows,
        "rows_digest": evaluation.rows_digest,
        "scored": [score.digest for score in evaluation.scores],
        "skipped": dict(evaluation.skipped),
        "insufficient": evaluation.insufficient,
    }
