"""The rollout machine: from an accepted version to the champion, one step and one routing revision at a time.

``decide`` is a pure function of the rollout, the evidence and the time; ``enter``, ``advance``, ``complete``,
``abort`` return new rollouts. Laws (tested): steps are passed in their order and never skipped, save shadow
steps of a returning predecessor; an aborted rollout never completes; nothing leaves a final state.
The machine refuses to hurry: evidence that is missing, or too thin for a signal, means wait, with the reason in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from modelyard_contracts.durations import duration_s
from modelyard_contracts.managed_model_v1alpha1 import AbortRule, RolloutStep

from modelyard_registry.domain.signals import Comparison, Reading, State, describe, read

__all__ = ["Decision", "Rollout", "Step", "abort", "advance", "complete", "decide", "enter", "pause", "plan", "resume"]

Kind = Literal["first", "new", "predecessor", "rollback", "manual"]
Outcome = Literal["pending", "running", "passed", "aborted", "skipped"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the plan and how it went."""

    index: int
    shadow: bool
    weight: int
    min_requests: int
    for_s: float = 0.0
    revision: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome = "pending"
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A version on its road to champion."""

    id: str
    model: str
    candidate: str
    previous: str | None
    kind: Kind
    started: datetime
    state: Literal["running", "paused", "completed", "aborted"] = "running"
    reason: str = ""
    ended: datetime | None = None
    waiting_for: str = ""
    steps: tuple[Step, ...] = ()
    abort_if: tuple[AbortRule, ...] = ()
    traceparent: str | None = None
    """The trace in which it was begun; its steps go on with it."""

    @property
    def live(self) -> Step | None:
        """The step that is running."""
        return next((step for step in self.steps if step.outcome == "running"), None)

    @property
    def upcoming(self) -> Step | None:
        """The next step to enter."""
        return next((step for step in self.steps if step.outcome == "pending"), None)

    @property
    def active(self) -> bool:
        """It is not over yet."""
        return self.state in ("running", "paused")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why."""

    action: Literal["wait", "advance", "complete", "abort"]
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def plan(steps: Sequence[RolloutStep], *, kind: Kind, direct: bool) -> tuple[Step, ...]:
    """Return the steps of a rollout: all skipped when it is direct, and shadow ones for a returning predecessor."""
    planned = []
    for index, step in enumerate(steps):
        skipped = direct or (kind == "predecessor" and step.shadow)
        why = "" if not skipped else ("direct promotion" if direct else "a returning predecessor needs no shadow")
        planned.append(
            Step(
                index=index,
                shadow=step.shadow,
                weight=step.weight or 0,
                min_requests=step.min_requests,
                for_s=duration_s(step.for_) if step.for_ else 0.0,
                outcome="skipped" if skipped else "pending",
                reason=why,
            )
        )
    return tuple(planned)


def decide(rollout: Rollout, comparison: Comparison | None, now: datetime, *, absent: str = "") -> Decision:
    """Return what to do with a rollout whose live step has been measured so.

    Args:
        rollout: as it stands.
        comparison: drift's evidence for the live step's revision; None when it could not be had.
        now: wall time.
        absent: why there is no comparison.
    """
    step = rollout.live
    if rollout.state != "running" or step is None:
        return Decision("wait", "paused by hand" if rollout.state == "paused" else "no step is running")
    if comparison is None:
        return Decision("wait", absent or "there is no evidence yet")
    if comparison.revision != step.revision:
        return Decision("wait", f"evidence of revision {step.revision} (drift has {comparison.revision})")
    readings = tuple(read(rule, comparison, shadow=step.shadow, weight=step.weight) for rule in rollout.abort_if)
    evidence = describe(comparison, readings)
    violated = [reading for reading in readings if reading.state is State.VIOLATED]
    if violated:
        return Decision("abort", "; ".join(reading.words for reading in violated), evidence)
    missing = _missing(step, comparison, readings, now)
    if missing:
        return Decision("wait", "; ".join(missing), evidence)
    last = not any(other.outcome == "pending" for other in rollout.steps)
    return Decision("complete" if last else "advance", _passed(step, comparison), evidence)


def _missing(step: Step, comparison: Comparison, readings: Sequence[Reading], now: datetime) -> list[str]:
    """Return in words what the step still needs."""
    words = []
    responses = comparison.candidate.responses if comparison.candidate else 0
    if responses < step.min_requests:
        words.append(f"{responses} of {step.min_requests} responses of the candidate")
    words += [reading.words for reading in readings if reading.state is State.INSUFFICIENT]
    passed_s = (now - step.started).total_seconds() if step.started else 0.0
    if passed_s < step.for_s:
        words.append(f"{step.for_s - passed_s:.0f} s more of {step.for_s:.0f} s")
    return words


def _passed(step: Step, comparison: Comparison) -> str:
    responses = comparison.candidate.responses if comparison.candidate else 0
    how = "in shadow" if step.shadow else f"at {step.weight} %"
    return f"{responses} responses of the candidate {how} without a reason to abort"


def enter(rollout: Rollout, revision: int, now: datetime) -> Rollout:
    """Return the rollout with its next pending step live in the given routing revision."""
    step = rollout.upcoming
    if step is None or rollout.live is not None or rollout.state != "running":
        raise ValueError("there is no step to enter")
    live = replace(step, outcome="running", revision=revision, started=now)
    return replace(_with(rollout, live), waiting_for=f"0 of {step.min_requests} responses of the candidate")


def advance(rollout: Rollout, decision: Decision, revision: int, now: datetime) -> Rollout:
    """Return the rollout with its live step passed and the next one entered."""
    return enter(_end_live(rollout, "passed", decision, now), revision, now)


def complete(rollout: Rollout, decision: Decision, now: datetime) -> Rollout:
    """Return the rollout completed: its candidate is champion from here on."""
    _must_be_active(rollout)
    done = _end_live(rollout, "passed", decision, now)
    if done.upcoming is not None:
        raise ValueError("a rollout completes after its last step")
    return replace(done, state="completed", ended=now, waiting_for="", reason=rollout.reason or decision.reason)


def abort(rollout: Rollout, decision: Decision, now: datetime) -> Rollout:
    """Return the rollout aborted, with the reason; the champion stays."""
    _must_be_active(rollout)
    ended = _end_live(rollout, "aborted", decision, now)
    return replace(ended, state="aborted", ended=now, waiting_for="", reason=decision.reason)


def pause(rollout: Rollout) -> Rollout:
    """Return the rollout paused: its routing stays, it does not advance."""
    _must_be_active(rollout)
    return replace(rollout, state="paused", waiting_for="a person: paused by hand")


def resume(rollout: Rollout) -> Rollout:
    """Return the rollout running again."""
    _must_be_active(rollout)
    return replace(rollout, state="running", waiting_for="evidence of the current step")


def _must_be_active(rollout: Rollout) -> None:
    if not rollout.active:
        raise ValueError(f"the rollout is {rollout.state} already")


def _end_live(rollout: Rollout, outcome: Outcome, decision: Decision, now: datetime) -> Rollout:
    step = rollout.live
    if step is None:
        return rollout
    return _with(rollout, replace(step, outcome=outcome, ended=now, reason=decision.reason, evidence=decision.evidence))


def _with(rollout: Rollout, step: Step) -> Rollout:
    return replace(rollout, steps=tuple(step if other.index == step.index else other for other in rollout.steps))
