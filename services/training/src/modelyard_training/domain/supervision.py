"""What to do next about a run, given what its launcher sees: one pure function, called again and again.

It decides from state and never from the event that woke anybody, so that a restarted service, two replicas, or a
signal that got lost all end in the same place. It refuses to launch an attempt twice: an attempt whose process was
seen, and is gone, is either over or followed by a new attempt with a higher number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from modelyard_training.domain.runs import Run, State

__all__ = ["Do", "Policy", "Presence", "Sighting", "Step", "next_step"]


class Presence(StrEnum):
    """How a launcher finds an attempt."""

    ABSENT = "absent"
    """It was never launched."""
    ALIVE = "alive"
    ENDED = "ended"
    """It ended by itself, with an exit code."""
    KILLED = "killed"
    """It is gone without a result of its own: killed, out of memory, the machine restarted."""
    STUCK = "stuck"
    """It is there and has not started, and waiting longer is of no use; ``reason`` says why."""
    OVERDUE = "overdue"
    """Its machine ended it at its deadline, while nobody supervised it."""


_THERE = frozenset({Presence.ALIVE, Presence.STUCK})


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a launcher sees of one attempt."""

    presence: Presence
    exit_code: int | None = None
    """Set with ``ENDED``."""
    detail: str = ""
    """More, for people: how it ended (``signal 9``), or what it waits for."""
    reason: str = ""
    """Why it ended or cannot start, as a sentence, when the launcher knows."""


class Do(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    LAUNCH = "launch"
    """Launch this attempt; doing so again is harmless."""
    LAUNCH_AGAIN = "launch_again"
    """Begin another attempt."""
    NOTE_RUNNING = "note_running"
    STOP = "stop"
    """Have it stopped; it ends in the state that the step names, with its reason."""
    TERMINATE = "terminate"
    """Ask the process to end."""
    KILL = "kill"
    FINISH = "finish"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; the state when it is ``STOP`` or ``FINISH``, and the words that go with it."""

    do: Do
    state: State | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds of supervision."""

    grace_s: float = 10.0
    """Between asking a process to end and killing it."""
    max_attempts: int = 2
    """A killed process is launched again until this many attempts were made."""


def next_step(run: Run, seen: Sighting, *, now: datetime, policy: Policy) -> Step:
    """Return what to do about a run that has begun (``attempts >= 1``)."""
    if run.over:
        return _after_the_end(run, seen, now, policy)
    if seen.presence in _THERE:
        return _while_there(run, seen, now, policy)
    if run.stopping is not None:
        # An attempt that was never launched must not be launched late either: the launcher seals it.
        return Step(Do.KILL) if seen.presence is Presence.ABSENT else Step(Do.FINISH, run.stopping, run.reason)
    if seen.presence is Presence.ABSENT:
        return _while_absent(run, now)
    if seen.presence is Presence.OVERDUE:
        return Step(Do.FINISH, State.TIMED_OUT, _overdue(run))
    if seen.presence is Presence.ENDED:
        return Step(Do.FINISH, State.FAILED, seen.reason or _ended_silently(seen))
    if run.attempts < policy.max_attempts and not run.overdue(now):
        return Step(Do.LAUNCH_AGAIN)
    return Step(Do.FINISH, State.FAILED, _killed(run, seen))


def _while_there(run: Run, seen: Sighting, now: datetime, policy: Policy) -> Step:
    if run.stopping is not None and run.stopping_since is not None:
        patience = run.stopping_since + timedelta(seconds=policy.grace_s)
        return Step(Do.KILL if now >= patience else Do.TERMINATE)
    if seen.presence is Presence.STUCK:
        return Step(Do.STOP, State.FAILED, seen.reason)
    if run.overdue(now):
        return Step(Do.STOP, State.TIMED_OUT, _overdue(run))
    if run.state is State.STARTING or run.reason != seen.detail:
        return Step(Do.NOTE_RUNNING, reason=seen.detail)
    return Step(Do.NOTHING)


def _while_absent(run: Run, now: datetime) -> Step:
    """Launch what was never launched. What was seen and is gone may have done its work: it never starts again."""
    if run.state is State.RUNNING:
        return Step(Do.FINISH, State.FAILED, "the training job is gone: somebody deleted it while it ran")
    if run.overdue(now):
        late = f"its timeout of {run.timeout_s:g} s passed before it could be launched"
        return Step(Do.STOP, State.TIMED_OUT, f"{late}: {run.reason}" if run.reason else late)
    return Step(Do.LAUNCH)


def _overdue(run: Run) -> str:
    return f"took longer than its timeout of {run.timeout_s:g} s"


def _after_the_end(run: Run, seen: Sighting, now: datetime, policy: Policy) -> Step:
    if run.settled:
        return Step(Do.NOTHING)
    if seen.presence not in _THERE:
        return Step(Do.SETTLE)
    # After its last report a job tidies up and leaves; one that stays is not waited for.
    if run.ended is not None and now >= run.ended + timedelta(seconds=policy.grace_s):
        return Step(Do.KILL)
    return Step(Do.NOTHING)


def _ended_silently(seen: Sighting) -> str:
    return f"the training process ended with {seen.detail or f'exit code {seen.exit_code}'} and reported no result"


def _killed(run: Run, seen: Sighting) -> str:
    more = f" ({seen.detail})" if seen.detail else ""
    attempts = f" in each of {run.attempts} attempts" if run.attempts > 1 else ""
    return f"the training process ended without a result (killed?){more}{attempts}"
