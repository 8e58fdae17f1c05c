"""Signals: what drift's comparison of candidate and champion says under each abort rule.

A signal with fewer responses than its rule asks for is insufficient, and so is a ratio whose champion was not
measured. Where a step cannot give a signal at all (disagreement without shadow copies, the champion's share at
full weight), the rule rests for that step and says so; waiting for it would last for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelyard_contracts.managed_model_v1alpha1 import AbortRule

__all__ = ["Comparison", "Reading", "Side", "State", "describe", "read"]


@dataclass(frozen=True, slots=True)
class Side:
    """One version within a routing revision."""

    version: str
    responses: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    performance: float | None = None
    performance_rows: int = 0

    @property
    def attempts(self) -> int:
        """Responses, or errors where a version gave nothing else."""
        return max(self.responses, self.errors)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate and champion within one routing revision."""

    revision: int
    champion: Side | None = None
    candidate: Side | None = None
    pairs: int = 0
    disagreement: float | None = None
    prediction_shift: float | None = None


class State(StrEnum):
    """What a signal says."""

    FINE = "fine"
    VIOLATED = "violated"
    INSUFFICIENT = "insufficient"
    RESTS = "rests"


@dataclass(frozen=True, slots=True)
class Reading:
    """One abort rule read off a comparison."""

    signal: str
    state: State
    words: str
    candidate: float | None = None
    champion: float | None = None


def read(rule: AbortRule, comparison: Comparison, *, shadow: bool, weight: int) -> Reading:
    """Return what the comparison says under one abort rule in a step of this kind."""
    if rule.signal == "disagreement":
        if not shadow:
            return Reading(rule.signal, State.RESTS, "disagreement is measured on shadow copies only")
        return _bounded(rule, comparison.disagreement, None, comparison.pairs)
    candidate = comparison.candidate
    if rule.ratio is not None and weight == 100 and not shadow:
        return Reading(rule.signal, State.RESTS, f"{rule.signal}: at 100 % there is no champion to compare with")
    if candidate is None:
        return Reading(rule.signal, State.INSUFFICIENT, f"{rule.signal}: 0 of {rule.min_responses} responses")
    value, rows = _value(rule.signal, candidate)
    against, against_rows = _value(rule.signal, comparison.champion) if comparison.champion else (None, 0)
    if rule.ratio is not None and against_rows < rule.min_responses:
        words = f"{rule.signal}: {against_rows} of {rule.min_responses} responses of the champion"
        return Reading(rule.signal, State.INSUFFICIENT, words, value, against)
    return _bounded(rule, value, against, rows)


def _value(signal: str, side: Side) -> tuple[float | None, int]:
    """Return a side's value of a signal and on how many rows it stands."""
    if signal == "performance":
        return side.performance, side.performance_rows
    if signal == "errorRatio":
        return (side.errors / side.attempts if side.attempts else None), side.attempts
    return (side.p50_ms if signal == "p50" else side.p99_ms), side.responses


def _bounded(rule: AbortRule, value: float | None, against: float | None, rows: int) -> Reading:
    if rows < rule.min_responses:
        unit = "pairs" if rule.signal == "disagreement" else "responses"
        words = f"{rule.signal}: {rows} of {rule.min_responses} {unit}"
        return Reading(rule.signal, State.INSUFFICIENT, words, value, against)
    if value is None:
        return Reading(rule.signal, State.INSUFFICIENT, f"{rule.signal} was not measured yet", value, against)
    if rule.signal in ("p50", "p99") and value <= rule.floor_ms:
        words = f"{rule.signal} {value:.4g} ms is under the floor of {rule.floor_ms:g} ms"
        return Reading(rule.signal, State.FINE, words, value, against)
    return _ratio(rule, value, against) if rule.ratio is not None else _absolute(rule, value, against)


def _absolute(rule: AbortRule, value: float, against: float | None) -> Reading:
    words, state = f"{rule.signal} {value:.4g}", State.FINE
    if rule.above is not None and value > rule.above:
        words, state = f"{words} is above {rule.above:g}", State.VIOLATED
    elif rule.below is not None and value < rule.below:
        words, state = f"{words} is below {rule.below:g}", State.VIOLATED
    return Reading(rule.signal, state, words, value, against)


def _ratio(rule: AbortRule, value: float, against: float | None) -> Reading:
    if against is None or rule.ratio is None:
        return Reading(rule.signal, State.INSUFFICIENT, f"{rule.signal} of the champion was not measured yet", value)
    words = f"{rule.signal} {value:.4g} against the champion's {against:.4g}"
    if value > rule.ratio * against:
        return Reading(
            rule.signal, State.VIOLATED, f"{words} is more than {rule.ratio:g} times as much", value, against
        )
    return Reading(rule.signal, State.FINE, words, value, against)


def describe(comparison: Comparison, readings: Sequence[Reading]) -> dict[str, Any]:
    """Return the evidence as it goes into the ledger."""
    sides = {"champion": comparison.champion, "candidate": comparison.candidate}
    shown: dict[str, Any] = {
        name: {
            "version": side.version,
            "responses": side.responses,
            "errors": side.errors,
            "p50_ms": side.p50_ms,
            "p99_ms": side.p99_ms,
            "performance": side.performance,
        }
        for name, side in sides.items()
        if side is not None
    }
    shown["pairs"] = comparison.pairs
    shown["disagreement"] = comparison.disagreement
    shown["prediction_shift"] = comparison.prediction_shift
    shown["signals"] = [f"{reading.state}: {reading.words}" for reading in readings]
    return shown
