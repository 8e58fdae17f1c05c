"""Gates: whether one version passes each rule of its manifest on the evidence of one evaluation.

A rule has three outcomes. ``insufficient`` is not a failure: it says that the evidence does not answer the
question, and why. This module refuses to guess: a version that was not measured on these rows, or that may
have learned from them, has no value here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from modelyard_contracts.managed_model_v1alpha1 import GateRule
from modelyard_contracts.metrics_v1 import HIGHER_IS_BETTER

__all__ = ["Contestant", "Evidence", "Outcome", "RuleResult", "gain", "judge", "measure", "passed", "sentence"]

TOLERANCE = 1e-9
"""Rounding of a difference of two decimals; far below what any metric resolves."""


class Outcome(StrEnum):
    """How a rule came out."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A version that takes part: who it is, and how far its knowledge reaches."""

    digest: str
    name: str
    """How people call it, for example ``version 3``."""
    data_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an evaluation measured: ``values[digest][metric]`` on the same rows."""

    kind: Literal["test", "fresh"]
    rows: int
    values: Mapping[str, Mapping[str, float]]
    rows_from: datetime | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    insufficient: str | None = None


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, how it came out, and on which numbers."""

    rule: str
    outcome: Outcome
    reason: str
    observed: float | None = None
    against: float | None = None


def gain(metric: str, value: float, reference: float) -> float:
    """Return by how much value is better than reference; errors and losses are better when lower."""
    return value - reference if HIGHER_IS_BETTER[metric] else reference - value


def sentence(rule: GateRule) -> str:
    """Return the rule as a person would say it."""
    rows = f"at least {rule.on.fresh.min_rows} fresh rows" if rule.on else "the judged rows"
    if rule.against:
        return f"{rule.metric} better than the champion's by {rule.improve_by or 0:g} on {rows}"
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", rule.min), ("<=", rule.max)) if bound is not None]
    return f"{rule.metric} {' and '.join(bounds)} on {rows}"


def measure(who: Contestant, metric: str, evidence: Evidence, *, may_overlap: bool = False) -> float | str:
    """Return who's metric on these rows, or in words why there is none.

    Args:
        who: the version.
        metric: the metric's name.
        evidence: the evaluation.
        may_overlap: rows older than its newest training row are in order (a random test split).
    """
    if who.digest not in evidence.values:
        why = evidence.skipped.get(who.digest, "it was not scored on these rows")
        return f"{who.name} has no {metric}: {why}"
    seen = who.data_until is not None and evidence.rows_from is not None and who.data_until > evidence.rows_from
    if seen and not may_overlap:
        return f"{who.name} may have learned from these rows: its data reaches {who.data_until}"
    value = evidence.values[who.digest].get(metric)
    return f"{metric} of {who.name} was not measured" if value is None else value


def passed(results: Sequence[RuleResult]) -> bool:
    """Return whether every rule passed."""
    return all(result.outcome is Outcome.PASSED for result in results)


def judge(
    rules: Sequence[GateRule],
    who: Contestant,
    *,
    champion: Contestant | None,
    evidence: Evidence | None,
    is_candidate: bool = True,
) -> tuple[RuleResult, ...]:
    """Return how who comes out under each of the rules."""
    return tuple(_one(rule, who, champion, evidence, is_candidate) for rule in rules)


def _one(
    rule: GateRule, who: Contestant, champion: Contestant | None, evidence: Evidence | None, is_candidate: bool
) -> RuleResult:
    text = sentence(rule)
    if rule.against and champion is None:
        return RuleResult(text, Outcome.PASSED, "there is no champion yet to compare with")
    if evidence is None:
        return RuleResult(text, Outcome.INSUFFICIENT, f"{who.name} came without an evaluation")
    shortage = _shortage(rule, champion, evidence)
    if shortage:
        return RuleResult(text, Outcome.INSUFFICIENT, shortage)
    observed = measure(who, rule.metric, evidence, may_overlap=is_candidate and evidence.kind == "test")
    if isinstance(observed, str):
        return RuleResult(text, Outcome.INSUFFICIENT, observed)
    if rule.against and champion is not None:
        return _relative(rule, text, observed, measure(champion, rule.metric, evidence), evidence)
    return _absolute(rule, text, observed, evidence)


def _shortage(rule: GateRule, champion: Contestant | None, evidence: Evidence) -> str | None:
    """Return what the evidence lacks in rows for this rule, if anything."""
    if evidence.kind == "fresh" and evidence.insufficient:
        return evidence.insufficient
    if rule.on is None:
        return None
    if evidence.kind != "fresh":
        # Without a champion nothing was served, so no fresh rows can exist: the test rows have to do.
        return None if champion is None else "this evaluation has no fresh rows"
    if evidence.rows < rule.on.fresh.min_rows:
        return f"{evidence.rows} fresh rows, it takes {rule.on.fresh.min_rows}"
    return None


def _absolute(rule: GateRule, text: str, observed: float, evidence: Evidence) -> RuleResult:
    if rule.min is not None and observed < rule.min - TOLERANCE:
        return RuleResult(text, Outcome.FAILED, f"{rule.metric} {observed:.4g} is below {rule.min:g}", observed)
    if rule.max is not None and observed > rule.max + TOLERANCE:
        return RuleResult(text, Outcome.FAILED, f"{rule.metric} {observed:.4g} is above {rule.max:g}", observed)
    where = f"{evidence.rows} {evidence.kind} rows"
    return RuleResult(text, Outcome.PASSED, f"{rule.metric} {observed:.4g} on {where}", observed)


def _relative(rule: GateRule, text: str, observed: float, against: float | str, evidence: Evidence) -> RuleResult:
    if isinstance(against, str):
        return RuleResult(text, Outcome.INSUFFICIENT, against, observed)
    better = gain(rule.metric, observed, against)
    asked = rule.improve_by or 0.0
    reason = (
        f"{rule.metric} {observed:.4g} against the champion's {against:.4g} on {evidence.rows} {evidence.kind} rows: "
        f"{'better' if better >= 0 else 'worse'} by {abs(better):.4g}, asked {asked:g}"
    )
    outcome = Outcome.PASSED if better >= asked - TOLERANCE else Outcome.FAILED
    return RuleResult(text, outcome, reason, observed, against)
