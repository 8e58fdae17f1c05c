"""Platform overview: the loop at a glance. Who is called at night begins here."""

from __future__ import annotations

from typing import Any

from tools.observability import slo
from tools.observability.dashboards.words import (
    CALLERS,
    MANIFEST,
    NUMBERED,
    SEVERITIES,
    by_model,
    edge_quantile,
    error_ratio,
    growth,
    latest,
)
from tools.observability.frame import MODEL, NAMESPACE, Frame
from tools.observability.limits import ANY, BUDGET, ERRORS, MAX_QUEUED, SLOW, filling, stages
from tools.observability.panels import Column, Query, Unjudged, columns, number, states, trend

__all__ = ["document"]

_SERVICES = 'job=~"modelyard-.*"'
_LIVE = "modelyard_registry_champion_number"
_DRIFTING = f'count(max by (model) (modelyard_drift_open_episodes_count{{{MODEL}, severity=~"high|critical"}}) > 0)'


def document() -> dict[str, Any]:
    """Return the dashboard."""
    frame = Frame(
        "modelyard-overview",
        "Modelyard / Platform overview",
        "What is live, what is rolling out, what drifts, what trains. Green all along the first row: go back to bed.",
    )
    return (
        frame.row("Is all well?", *_first())
        .row("Models", _models())
        .row("The loop", *_loop())
        .row("Promises", *_promises())
        .document()
    )


def _first() -> list[Any]:
    return [*_trouble(), *_motion()]


def _trouble() -> list[Any]:
    """Return what wakes somebody."""
    return [
        number(
            "Alerts firing",
            "Critical and warning alerts of the platform; each has a runbook.",
            f'count(ALERTS{{alertstate="firing", severity=~"critical|warning", {NAMESPACE}}}) or vector(0)',
            unit="none",
            bad=((None, "green"), (1, "orange"), (3, "red")),
        ),
        number(
            "Services down",
            "Processes that Prometheus cannot scrape.",
            f"count(up{{{NAMESPACE}, {_SERVICES}}} == 0) or vector(0)",
            unit="none",
            bad=ANY,
        ),
        number(
            "Prediction errors",
            "Share of predictions that ended in an error of ours (5xx, 429). Promise: below 0.1 %.",
            error_ratio(),
            unit="percentunit",
            bad=ERRORS,
            decimals=2,
            none="no requests",
        ),
        number(
            "Prediction p99",
            "Slowest one in a hundred predictions, at the service. Promise: 100 ms.",
            edge_quantile(0.99),
            unit="s",
            bad=SLOW,
            none="no requests",
        ),
    ]


def _motion() -> list[Any]:
    """Return what the loop is doing."""
    return [
        number(
            "Models live",
            "Models with a champion.",
            f"count({latest(_LIVE)} > 0) or vector(0)",
            unit="none",
            bad=((None, "red"), (1, "blue")),
        ),
        number(
            "Rolling out",
            "Models with a candidate on its road to champion.",
            f"count({latest('modelyard_registry_candidate_number')} > 0) or vector(0)",
            unit="none",
            bad=Unjudged("a rollout is the platform at work."),
        ),
        number(
            "Models drifting",
            "Models with an open episode of high or critical severity. One retraining should end it.",
            f"{_DRIFTING} or vector(0)",
            unit="none",
            bad=((None, "green"), (1, "orange")),
        ),
        number(
            "Training now",
            "Runs that are at work; those that wait are in the dashboard of training.",
            f'sum(max by (namespace, state) (modelyard_training_runs_count{{{NAMESPACE}, state="running"}}))',
            unit="none",
            bad=Unjudged("a run is the platform at work."),
        ),
    ]


def _models() -> Any:
    severity = latest("modelyard_drift_severity_level")
    candidate = latest("modelyard_registry_candidate_number")
    return columns(
        "Models",
        "One line a model: what answers, what is on its way, whether it still fits, and how well it does.",
        "model",
        [
            Column("Champion", latest(_LIVE), words={0: ("none", "text")}),
            Column("Candidate", f"{candidate} > 0"),
            Column(
                "Its share",
                f"{latest('modelyard_registry_candidate_weight_percent')} and on (model) {candidate} > 0",
                "percent",
            ),
            Column("Step", f"{latest('modelyard_registry_rollout_step_number')} > 0"),
            Column("Drift", severity, words=SEVERITIES),
            Column(
                "Open episodes",
                f"sum by (model) (max by (model, severity) (modelyard_drift_open_episodes_count{{{MODEL}}}))",
                bad=((None, "transparent"), (1, "orange")),
            ),
            Column("Performance", latest("modelyard_drift_performance_ratio"), decimals=3),
            Column("Its floor", latest("modelyard_drift_performance_bound_ratio"), decimals=3),
            Column("Requests", by_model("modelyard_inference_requests_total"), "reqps", decimals=1),
            Column(
                "Servers without it",
                f"max by (model) (model:champion_missing:instances{{{MODEL}}})",
                bad=((None, "transparent"), (1, "red")),
            ),
            Column("Champion for", f"time() - {latest('modelyard_registry_champion_since_seconds')}", "s"),
            Column("Last trained", f"time() - {latest('modelyard_training_last_success_seconds')}", "s"),
        ],
        height=6,
    )


def _loop() -> list[Any]:
    return [
        trend(
            "Serve: predictions",
            "Answered requests by model.",
            Query(by_model("modelyard_inference_requests_total"), "{{model}}"),
            unit="reqps",
            bad=CALLERS,
        ),
        states(
            "Watch: drift",
            "Severity of the last scored window of each model.",
            Query(latest("modelyard_drift_severity_level"), "{{model}}"),
            words=SEVERITIES,
            width=8,
        ),
        trend(
            "Train: runs",
            "Runs that wait and runs that are at work; dashed: half of those that may wait, and all (`max_queued`).",
            Query(f'max(modelyard_training_runs_count{{{NAMESPACE}, state="running"}})', "running"),
            Query(f"max(modelyard_training_queue_depth_runs{{{NAMESPACE}}})", "waiting"),
            unit="none",
            bad=filling(MAX_QUEUED),
            style="step",
        ),
        trend(
            "Judge: verdicts",
            "Versions judged, by what the gates said.",
            Query(
                f"sum by (decision) ({growth(f'modelyard_registry_verdicts_total{{{MODEL}}}')}) > 0",
                "{{decision}}",
            ),
            unit="none",
            bad=Unjudged("refusals count by the week, which the alert GateRefuses does."),
            style="bars",
        ),
        trend(
            "Roll out: share of the candidate",
            "Share of requests that the candidate answers; 0 in shadow, and when there is none.",
            Query(latest("modelyard_registry_candidate_weight_percent"), "{{model}}"),
            unit="percent",
            bad=MANIFEST,
            style="step",
            most=100,
        ),
        trend(
            "Serve: champion",
            "Number of the champion's version; a step is a promotion, one down a rollback or a predecessor.",
            Query(latest(_LIVE), "{{model}}"),
            unit="none",
            bad=NUMBERED,
            style="step",
        ),
    ]


def _promises() -> list[Any]:
    return [
        trend(
            "Error budget left",
            "What is left of the budget of the last 30 days, by objective. Below 0 the promise is broken.",
            Query(f"min by (slo) (namespace:slo_budget:remaining_ratio{{{NAMESPACE}}})", "{{slo}}"),
            unit="percentunit",
            bad=BUDGET,
            width=12,
            most=1,
        ),
        trend(
            "Burn rate over one hour",
            "How many times faster than it lasts the budget is spent. "
            f"From {slo.BURNS[0].rate:g} on somebody is woken.",
            *[Query(f"max({burning(one)})", one.name) for one in slo.load().objectives],
            unit="none",
            bad=stages(slo.BURNS[-1].rate, slo.BURNS[0].rate),
            width=12,
        ),
    ]


def burning(objective: slo.Objective) -> str:
    """Return how many times too fast a budget is spent, by namespace."""
    return f'namespace:slo_errors:ratio_rate1h{{{NAMESPACE}, slo="{objective.name}"}} / {objective.budget:g}'
