"""Training and registry: from a command to a champion, and where it stops."""

from __future__ import annotations

from typing import Any

from tools.observability.dashboards.words import CALLERS, MANIFEST, NUMBERED, by_model, growth, latest, quantile
from tools.observability.frame import MODEL, NAMESPACE, Frame
from tools.observability.limits import (
    LIMITS,
    MAX_QUEUED,
    MLFLOW_READ_S,
    RUN_TIMEOUT_S,
    STALE_S,
    above,
    filling,
    stages,
)
from tools.observability.panels import Query, Unjudged, number, trend

__all__ = ["document"]

_SELDOM = "6h"
"""Runs and versions come a few times a day."""
_RUNS = "modelyard_training_runs_count"
_ENDED = "modelyard_training_runs_ended_total"
_VERDICTS = "modelyard_registry_verdicts_total"


def document() -> dict[str, Any]:
    """Return the dashboard."""
    frame = Frame(
        "modelyard-training",
        "Modelyard / Training and registry",
        "Runs, verdicts and promotions: how a change in the world becomes another champion, or why it does not.",
    )
    return (
        frame.row("Does the platform learn?", *_first())
        .row("Runs", *_runs())
        .row("Verdicts and promotions", *_verdicts())
        .row("Registry and MLflow", *_registry())
        .document()
    )


def _first() -> list[Any]:
    return [*_queue(), *_outcomes()]


def _queue() -> list[Any]:
    """Return how runs get on."""
    return [
        number(
            "Running",
            "Runs that are at work.",
            f'max({_RUNS}{{{NAMESPACE}, state="running"}})',
            unit="none",
            bad=Unjudged("a run is the platform at work."),
        ),
        number(
            "Waiting",
            "Runs that wait for room.",
            f"max(modelyard_training_queue_depth_runs{{{NAMESPACE}}})",
            unit="none",
            bad=filling(MAX_QUEUED),
        ),
        number(
            "Longest wait",
            "How long the oldest waiting run has waited to begin.",
            f"max(modelyard_training_queue_wait_seconds{{{NAMESPACE}}})",
            unit="s",
            bad=stages(LIMITS["queue_wait_s"] / 3, LIMITS["queue_wait_s"]),
        ),
        number(
            "Failed in a day",
            "Runs that failed or took too long.",
            f'sum(increase({_ENDED}{{{MODEL}, state=~"failed|timed_out"}}[1d]))',
            unit="none",
            decimals=0,
            bad=stages(1, LIMITS["failed_in_a_day"]),
        ),
    ]


def _outcomes() -> list[Any]:
    """Return what comes of them."""
    due = f"min(time() - {latest('modelyard_training_schedule_due_seconds')})"
    step = f"max(time() - {latest('modelyard_registry_rollout_step_started_seconds')})"
    return [
        number(
            "Refused in a week",
            "Versions that the gates did not let pass; an alert where none passed meanwhile.",
            f'sum(increase({_VERDICTS}{{{MODEL}, decision=~"keep|insufficient"}}[7d]))',
            unit="none",
            decimals=0,
            bad=above(LIMITS["refused_in_a_week"]),
        ),
        number(
            "Accepted in a week",
            "Versions that the gates let pass, predecessors included.",
            f'sum(increase({_VERDICTS}{{{MODEL}, decision=~"promote.*"}}[7d]))',
            unit="none",
            decimals=0,
            bad=Unjudged("a week without a better version may be a good week."),
        ),
        number(
            "Longest step",
            "How long the slowest rollout has been in its step; red: it is held.",
            f"{step} or vector(0)",
            unit="s",
            bad=stages(LIMITS["held_s"] / 6, LIMITS["held_s"]),
        ),
        number(
            "Schedules overdue by",
            "Above 0: a cron trigger is due and does not start.",
            f"clamp_min({due}, 0) or vector(0)",
            unit="s",
            bad=above(LIMITS["overdue_s"], "red"),
        ),
    ]


def _runs() -> list[Any]:
    duration = "modelyard_training_run_duration_seconds"
    return [
        trend(
            "Runs by state",
            "Runs that are not over; dashed: half of those that may wait, and all (`max_queued`).",
            Query(
                f'max by (state) ({_RUNS}{{{NAMESPACE}, state!~"succeeded|failed|cancelled|timed_out"}})', "{{state}}"
            ),
            unit="none",
            bad=filling(MAX_QUEUED),
            style="stack",
        ),
        trend(
            "Endings",
            "Runs that ended, by how.",
            Query(f"sum by (state) ({growth(f'{_ENDED}{{{MODEL}}}')}) > 0", "{{state}}"),
            unit="none",
            bad=Unjudged("failures count by the day, as the first row and the alert TrainingFails do."),
            style="bars",
        ),
        trend(
            "Duration",
            "From the start of a run to its end, of those that succeeded within six hours; "
            "dashed: half of the time that a run has where its manifest says nothing, and all of it.",
            *[
                Query(
                    quantile(q, duration, f'{MODEL}, state="succeeded"', "model", window=_SELDOM),
                    f"{{{{model}}}} p{q * 100:g}",
                )
                for q in (0.5, 0.95)
            ],
            unit="s",
            bad=filling(RUN_TIMEOUT_S),
        ),
        trend(
            "Since the last training",
            "Since a run of the model last succeeded; dashed: as long as the data of a champion may be old.",
            Query(f"time() - {latest('modelyard_training_last_success_seconds')}", "{{model}}"),
            unit="s",
            bad=above(STALE_S),
        ),
        trend(
            "Longest wait",
            "How long the oldest waiting run has waited.",
            Query(f"max(modelyard_training_queue_wait_seconds{{{NAMESPACE}}})", "oldest"),
            unit="s",
            bad=above(LIMITS["queue_wait_s"]),
        ),
        trend(
            "Data taken in",
            "Bytes of new dataset versions.",
            Query(f"sum({growth(f'modelyard_training_dataset_bytes_total{{{NAMESPACE}}}')})", "bytes"),
            unit="bytes",
            bad=Unjudged("data come when somebody has some."),
            style="bars",
        ),
    ]


def _verdicts() -> list[Any]:
    return [
        trend(
            "Verdicts",
            "Versions judged, by what the gates said.",
            Query(f"sum by (decision) ({growth(f'{_VERDICTS}{{{MODEL}}}')}) > 0", "{{decision}}"),
            unit="none",
            bad=Unjudged("refusals count by the week, as the first row and the alert GateRefuses do."),
            style="bars",
        ),
        trend(
            "Champion",
            "Number of the champion's version.",
            Query(latest("modelyard_registry_champion_number"), "{{model}}"),
            unit="none",
            bad=NUMBERED,
            style="step",
        ),
        trend(
            "Candidate",
            "Number of the version that is being rolled out; 0: none.",
            Query(latest("modelyard_registry_candidate_number"), "{{model}}"),
            unit="none",
            bad=NUMBERED,
            style="step",
        ),
        trend(
            "Step of the rollout",
            "The step that is live; 0: no rollout.",
            Query(latest("modelyard_registry_rollout_step_number"), "{{model}}"),
            unit="none",
            bad=MANIFEST,
            style="step",
        ),
        trend(
            "Time in the step",
            "How long the live step has been going on; above the line it is held.",
            Query(f"time() - {latest('modelyard_registry_rollout_step_started_seconds')}", "{{model}}"),
            unit="s",
            bad=above(LIMITS["held_s"]),
        ),
        trend(
            "Waits for approval",
            "How long the oldest promotion of a model has waited for somebody; dashed: it is told.",
            Query(f"time() - {latest('modelyard_registry_promotion_waiting_since_seconds')}", "{{model}}"),
            unit="s",
            bad=above(LIMITS["approval_s"]),
        ),
    ]


def _registry() -> list[Any]:
    return [
        trend(
            "Taking versions in",
            "Time to verify every byte of a bundle and to judge it, over six hours; "
            "dashed: as long as MLflow may be silent (`mlflow_read_s`).",
            *[
                Query(quantile(q, "modelyard_registry_register_seconds", NAMESPACE, window=_SELDOM), f"p{q * 100:g}")
                for q in (0.5, 0.95)
            ],
            unit="s",
            bad=above(MLFLOW_READ_S),
        ),
        trend(
            "Requests to MLflow",
            "Requests through the governing proxy, by what became of them.",
            Query(by_model("modelyard_registry_proxy_requests_total", NAMESPACE, by="outcome"), "{{outcome}}"),
            unit="reqps",
            bad=CALLERS,
        ),
        trend(
            "Mirror behind",
            "Models that look otherwise in MLflow than in the registry.",
            Query(f"max(modelyard_registry_mirror_pending{{{NAMESPACE}}})", "models"),
            unit="none",
            bad=above(1),
        ),
    ]
