"""The training service's API: dataset versions, runs, evaluations, and what a job reports."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelyard_contracts.base import Request, UtcTime, View
from modelyard_contracts.bundle_v1 import Column
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.refs import DigestText, ModelName

__all__ = [
    "TERMINAL_STATES",
    "DatasetView",
    "JobSpec",
    "RunReport",
    "RunState",
    "RunTrigger",
    "RunView",
    "ScheduleView",
    "SubmitRunRequest",
]

RunState = Literal["pending", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"]
TERMINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})


class DatasetView(View):
    """A dataset version: immutable, named by the digest over all its rows."""

    digest: DigestText
    rows: int
    size_bytes: int
    columns: tuple[Column, ...]
    created: UtcTime
    name: str = ""


class RunTrigger(Request):
    """Why a run was asked for."""

    kind: Literal["spec", "manual", "cron", "drift", "performance"]
    reason: str = ""
    episode: str | None = None
    """The episode. One of kind ``drift`` gets one run at most; one of performance gets one for each command."""


class SubmitRunRequest(Request):
    """Ask for a training run. With an ``Idempotency-Key``, or for an episode of drift, asked twice means run once."""

    model: ModelName
    trigger: RunTrigger = RunTrigger(kind="manual")
    until_label_seq: int | None = Field(None, ge=0)
    """Learn from labels received up to this sequence number; default: all that drift has now."""


class RunView(View):
    """A training run."""

    id: str
    model: ModelName
    state: RunState
    trigger: RunTrigger
    stage: str = ""
    """load, validate, split, fit, evaluate, register…"""
    progress: float = Field(0.0, ge=0, le=1)
    reason: str = ""
    """Why it failed, in words a person can act on."""
    training_digest: DigestText
    until_label_seq: int | None = None
    created: UtcTime
    started: UtcTime | None = None
    ended: UtcTime | None = None
    version: DigestText | None = None
    mlflow_run_id: str | None = None
    metrics: dict[str, float] = {}
    attempts: int = 0


class JobSpec(View):
    """Everything a training job needs, written by the control plane to ``job.json`` (or an environment variable).

    The job reads nothing else: no shared disk, no database.
    """

    run: str
    model: ModelName
    spec: dict[str, Any]
    """The manifest's ``spec``."""
    training_digest: DigestText
    trigger: RunTrigger
    until_label_seq: int | None = None
    """None: a first run, which learns from ``data.source`` alone."""
    training_url: str
    registry_url: str
    drift_url: str | None = None
    mlflow_url: str
    token_file: str | None = None
    timeout_s: float
    work_dir: str
    termination_log: str | None = None
    """A file for the last report as well, where ``work_dir`` does not outlive the job; it keeps 4,096 bytes."""
    traceparent: str | None = None
    """The trace that the run belongs to (W3C Trace Context)."""
    otlp_endpoint: str | None = None
    """Where the job's spans go; none: it makes none."""
    environment: str = ""
    """Which installation it works for, as its log lines have it."""


class RunReport(Request):
    """What a job tells the control plane: ``POST /v1/runs/{id}/reports``. Reports with an older ``seq`` are no-ops."""

    seq: int = Field(ge=0)
    stage: str
    progress: float = Field(ge=0, le=1)
    outcome: Literal["running", "succeeded", "failed"] = "running"
    reason: str = ""
    metrics: dict[str, float] = {}
    version: DigestText | None = None
    mlflow_run_id: str | None = None
    evaluation: Evaluation | None = None


class ScheduleView(View):
    """A cron trigger of a model and what became of it: ``GET /v1/schedules``."""

    model: ModelName
    cron: str
    next_due: UtcTime
    last_due: UtcTime | None = None
    last_run: str | None = None
    note: str = ""
    """What became of the last due time, in words."""
