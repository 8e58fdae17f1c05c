"""The life of a training run: its states, the legal ways between them, and what a job's report does to it.

::

    pending ──► starting ──► running ──► succeeded | failed | cancelled | timed_out
       │           │  ▲         │
       │           │  └─────────┘  a killed process is launched again, once
       └► cancelled | failed (also from starting)

Functions return new runs; nothing here knows the clock, a process or a table. Laws (tested): nothing leaves a final
state; a run takes a report at most once; ``attempts`` never falls. Refused: reports that contradict a run that is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from modelyard_common.errors import Conflict

__all__ = [
    "ACTIVE",
    "FINAL",
    "LEGAL",
    "Report",
    "Run",
    "State",
    "Trigger",
    "absorb",
    "ask_to_stop",
    "begin",
    "finish",
    "mark_running",
    "settle",
]


class State(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


ACTIVE = frozenset({State.STARTING, State.RUNNING})
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT})

LEGAL: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.STARTING, State.CANCELLED, State.FAILED}),
    State.STARTING: frozenset({State.STARTING, State.RUNNING}) | FINAL,
    State.RUNNING: frozenset({State.STARTING, State.RUNNING}) | FINAL,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.TIMED_OUT: frozenset(),
}
"""From each state, the states that may follow."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a run was asked for."""

    kind: Literal["spec", "manual", "cron", "drift", "performance"]
    reason: str = ""
    episode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run."""

    id: str
    model: str
    trigger: Trigger
    spec: Mapping[str, Any]
    """The manifest's ``spec`` as it was when the run was asked for."""
    training_digest: str
    timeout_s: float
    created: datetime
    until_label_seq: int | None = None
    state: State = State.PENDING
    stage: str = ""
    progress: float = 0.0
    reason: str = ""
    started: datetime | None = None
    """Of the first attempt; the timeout counts from here."""
    ended: datetime | None = None
    attempts: int = 0
    stopping: State | None = None
    """The state that was asked for (``cancelled``, ``timed_out``, ``failed``); it follows when the process is gone."""
    stopping_since: datetime | None = None
    settled: bool = False
    """The run is over and its process is known to be gone."""
    report_seq: int = -1
    """Of the newest report taken from this attempt."""
    report_digest: str = ""
    version: str | None = None
    mlflow_run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    traceparent: str | None = None
    """The trace in which it was asked for; its job goes on with it."""

    @property
    def over(self) -> bool:
        """It is in a final state."""
        return self.state in FINAL

    def overdue(self, now: datetime) -> bool:
        """Return whether the time that the run may take has passed."""
        return self.started is not None and now >= self.started + timedelta(seconds=self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a job says about itself."""

    seq: int
    digest: str
    """Of everything that the report says: two reports are the same if it is."""
    stage: str
    progress: float
    outcome: Literal["running", "succeeded", "failed"] = "running"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str | None = None
    mlflow_run_id: str | None = None
    evaluation: Mapping[str, Any] | None = None


def _move(run: Run, to: State) -> Run:
    if to not in LEGAL[run.state]:
        raise Conflict(f"run {run.id} is {run.state} and cannot become {to}")
    return replace(run, state=to)


def begin(run: Run, now: datetime) -> Run:
    """Return the run with another attempt begun. It is recorded before anything is launched."""
    return replace(
        _move(run, State.STARTING),
        attempts=run.attempts + 1,
        started=run.started or now,
        stage="",
        progress=0.0,
        # A new process counts its reports from the start again.
        report_seq=-1,
        report_digest="",
    )


def mark_running(run: Run, waits_for: str = "") -> Run:
    """Return the run as running: its process, or what will start it, was seen.

    Args:
        run: that has begun.
        waits_for: what keeps it from starting, in words; why it is being stopped is worth more, and stays.
    """
    moved = _move(run, State.RUNNING) if run.state is State.STARTING else run
    return moved if run.stopping is not None else replace(moved, reason=waits_for)


def ask_to_stop(run: Run, why: State, now: datetime, reason: str) -> Run:
    """Return the run on its way to a final state; one that has no process yet is there at once.

    The first reason stays. A run that is over is returned as it is: to stop it again changes nothing.
    """
    if run.over or run.stopping is not None:
        return run
    if run.state is State.PENDING:
        return finish(run, why, now, reason)
    return replace(run, stopping=why, stopping_since=now, reason=reason)


def finish(run: Run, state: State, now: datetime, reason: str) -> Run:
    """Return the run in a final state."""
    if state not in FINAL:
        raise ValueError(f"{state} is not final")
    # A run that never began has no process to wait for.
    return replace(_move(run, state), ended=now, reason=reason, settled=run.attempts == 0)


def settle(run: Run) -> Run:
    """Return the run that is over with its process known to be gone."""
    if not run.over:
        raise ValueError(f"run {run.id} is {run.state}")
    return replace(run, settled=True)


def absorb(run: Run, report: Report, now: datetime) -> Run:
    """Return the run after a report.

    A report that was taken already, or is older than one that was, changes nothing. A result is taken even while
    the run is being stopped: the job was faster than the signal, and what it registered exists.

    Raises:
        Conflict: the run is over and this is not its last report again, or it has not begun.
    """
    if run.over:
        if report.seq < run.report_seq or (report.seq == run.report_seq and report.digest == run.report_digest):
            return run
        raise Conflict(f"run {run.id} is {run.state} and takes no more reports")
    if run.state is State.PENDING:
        raise Conflict(f"run {run.id} has not begun, it takes no reports")
    if report.seq <= run.report_seq:
        return run
    taken = replace(
        mark_running(run),
        stage=report.stage,
        progress=report.progress,
        report_seq=report.seq,
        report_digest=report.digest,
        metrics={**run.metrics, **report.metrics},
        version=report.version or run.version,
        mlflow_run_id=report.mlflow_run_id or run.mlflow_run_id,
        evaluation=report.evaluation or run.evaluation,
    )
    if report.outcome == "succeeded":
        return replace(finish(taken, State.SUCCEEDED, now, report.reason), progress=1.0)
    if report.outcome == "failed" and run.stopping is not None:
        # The job says that it was interrupted; why, we know better.
        return finish(taken, run.stopping, now, run.reason)
    if report.outcome == "failed":
        return finish(taken, State.FAILED, now, report.reason or "the training job failed and gave no reason")
    return taken
