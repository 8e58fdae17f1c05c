"""The retrain policy as one pure function: an episode, the limits and the past in, a decision with its reason out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from modelyard_drift.domain.severity import ORDER, Severity

__all__ = ["Decision", "Limits", "decide"]

DecisionKind = Literal["command", "cooldown", "budget", "below_severity", "quality", "no_policy", "paused", "off"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the manifest allows."""

    at_least: Severity | None
    """The severity that commands; None: the manifest has no such trigger."""
    cooldown: timedelta
    max_per_week: int
    paused: bool = False
    commands_on: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about an episode, and why."""

    kind: DecisionKind
    reason: str


def decide(
    severity: Severity, limits: Limits, *, now: datetime, commands: Sequence[datetime], faults: Sequence[str]
) -> Decision:
    """Return whether training is commanded.

    Args:
        now: event time.
        commands: event times of the commands so far.
        faults: quality faults of the window; with any of them nothing is commanded.
    """
    if limits.at_least is None:
        return Decision("no_policy", "the manifest has no trigger for this: train.when")
    if ORDER.index(severity) < ORDER.index(limits.at_least):
        return Decision("below_severity", f"{severity} is below {limits.at_least}")
    if limits.paused:
        return Decision("paused", "the model is paused")
    if faults:
        return Decision("quality", f"broken data must not train a model: {faults[0]}")
    if commands and now < max(commands) + limits.cooldown:
        again = max(commands) + limits.cooldown
        return Decision(
            "cooldown", f"the last command was at {max(commands):%Y-%m-%d %H:%M}; again from {again:%Y-%m-%d %H:%M}"
        )
    week = [moment for moment in commands if moment > now - timedelta(days=7)]
    if len(week) >= limits.max_per_week:
        return Decision("budget", f"{len(week)} commands in the last seven days; at most {limits.max_per_week}")
    if not limits.commands_on:
        return Decision("off", "commands are switched off (MODELYARD_DRIFT_COMMANDS)")
    return Decision("command", f"{severity} severity, at least {limits.at_least}")
