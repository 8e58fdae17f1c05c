"""Inference: rate, errors, duration; where the time goes; the candidate against the champion."""

from __future__ import annotations

from typing import Any

from tools.observability.dashboards.words import (
    CALLERS,
    EDGE,
    GRPC,
    MANIFEST,
    asked,
    by_model,
    edge_quantile,
    error_ratio,
    latest,
    or_none,
    per_second,
    quantile,
)
from tools.observability.frame import MODEL, NAMESPACE, VERSION, Frame
from tools.observability.limits import (
    ANY,
    BATCH_ROWS,
    BUDGET,
    ERRORS,
    LIMITS,
    MAX_CONCURRENT,
    SHADOW_ROWS,
    SLOW,
    above,
    filling,
    stages,
)
from tools.observability.panels import Query, Unjudged, number, trend

__all__ = ["document"]

_PREDICT = "modelyard_inference_predict_seconds"
_STAGES = "modelyard_inference_stage_seconds"
_ONCE = f'{NAMESPACE}, stage="predict"'
"""Each request is predicted once."""
_BATCH = "modelyard_inference_batch_requests"
_ROWS = "modelyard_inference_batch_rows"
_REQUESTS = "modelyard_inference_requests_total"


def document() -> dict[str, Any]:
    """Return the dashboard."""
    frame = Frame(
        "modelyard-inference",
        "Modelyard / Inference",
        "Rate, errors and duration of predictions, by model and version.",
        by_version=True,
    )
    return (
        frame.row("Are callers served?", *_first())
        .row("Rate, errors, duration", *_red())
        .row("Where the time goes", *_stages())
        .row("Batches", *_batches())
        .row("Candidate against champion", *_canary())
        .row("Threads, spool, routing", *_saturation())
        .document()
    )


def _first() -> list[Any]:
    return [*_callers(), *_promises()]


def _callers() -> list[Any]:
    """Return what callers notice."""
    return [
        number(
            "Predictions",
            "Prediction requests, all models, over HTTP and gRPC.",
            f"sum({asked('requests_total')})",
            unit="reqps",
            bad=CALLERS,
            decimals=1,
            none="no requests",
        ),
        number(
            "Errors",
            "Share of predictions that ended in an error of ours (5xx, 429). Promise: below 0.1 %.",
            error_ratio(),
            unit="percentunit",
            bad=ERRORS,
            decimals=2,
            none="no requests",
        ),
        number(
            "p50",
            "Half of the predictions are faster, at the service.",
            edge_quantile(0.5),
            unit="s",
            bad=SLOW,
            none="no requests",
        ),
        number(
            "p99",
            "Ninety-nine of a hundred predictions are faster, at the service. Promise: 100 ms.",
            edge_quantile(0.99),
            unit="s",
            bad=SLOW,
            none="no requests",
        ),
    ]


def _promises() -> list[Any]:
    """Return what is promised, and what endangers it."""
    missing = f"max(model:champion_missing:instances{{{MODEL}}})"
    return [
        number(
            "Availability budget left",
            "Of the last 30 days.",
            f'min(namespace:slo_budget:remaining_ratio{{{NAMESPACE}, slo="inference-availability"}})',
            unit="percentunit",
            bad=BUDGET,
            decimals=0,
            none="no requests",
        ),
        number(
            "Latency budget left",
            "Of the last 30 days.",
            f'min(namespace:slo_budget:remaining_ratio{{{NAMESPACE}, slo="inference-latency"}})',
            unit="percentunit",
            bad=BUDGET,
            decimals=0,
            none="no requests",
        ),
        number(
            "Servers without champion",
            "Inference servers that do not serve the champion of some model.",
            missing,
            unit="none",
            bad=ANY,
        ),
        number(
            "Candidates tripped",
            "Candidates that get no requests because they failed too often in a row.",
            f"sum({latest('modelyard_inference_candidate_tripped_state')})",
            unit="none",
            bad=ANY,
        ),
    ]


def _red() -> list[Any]:
    failed = f'{VERSION}, outcome!="answered"'
    return [
        trend(
            "Requests by version",
            "Answered requests by model and version.",
            Query(by_model(_REQUESTS, f'{VERSION}, outcome="answered"', by="model, version"), "{{model}} v{{version}}"),
            unit="reqps",
            bad=CALLERS,
        ),
        trend(
            "Failures by outcome",
            "Share of its requests that a version did not answer: late, refused, failed, overloaded.",
            Query(
                or_none(
                    f"{by_model(_REQUESTS, failed, by='model, version, outcome')} / on (model, version) group_left () "
                    + by_model(_REQUESTS, VERSION, by="model, version"),
                    "outcome",
                ),
                "{{model}} {{version}} {{outcome}}",
            ),
            unit="percentunit",
            bad=ERRORS,
        ),
        trend(
            "Answers by status",
            "Prediction requests by HTTP status and gRPC code, as callers see them.",
            Query(f"sum by (status) ({per_second(f'modelyard_http_requests_total{{{EDGE}}}')})", "{{status}}"),
            Query(f"sum by (code) ({per_second(f'modelyard_grpc_requests_total{{{GRPC}}}')})", "gRPC {{code}}"),
            unit="reqps",
            bad=Unjudged("its errors are judged by their share, in the first row."),
            style="stack",
        ),
        trend(
            "Latency at the service",
            "From the last byte of the request to the first of the answer; dashed: the promise.",
            *[Query(edge_quantile(q), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
            unit="s",
            bad=SLOW,
        ),
        trend(
            "Latency of models, p99",
            "Checking the rows and running the model.",
            Query(quantile(0.99, _PREDICT, VERSION, "model", "version"), "{{model}} v{{version}}"),
            unit="s",
            bad=SLOW,
        ),
        trend(
            "Rows by request",
            "How many rows come with one request, on average: large ones are answered by threads.",
            Query(
                f"{by_model('modelyard_inference_rows_total', VERSION)} / "
                + by_model(_REQUESTS, f'{VERSION}, outcome="answered"'),
                "{{model}}",
            ),
            unit="none",
            bad=CALLERS,
        ),
    ]


def _stages() -> list[Any]:
    # The edge counts requests of all models: what it is compared with may not be narrowed to one.
    total, count = (per_second(f"{_STAGES}_{part}{{{NAMESPACE}}}") for part in ("sum", "count"))
    stages = f"sum by (stage) ({total}) / on () group_left sum({count.replace(NAMESPACE, _ONCE)})"
    edge = f"sum({asked('request_seconds_sum')}) / sum({asked('request_seconds_count')})"
    return [
        trend(
            "Mean time by stage",
            "Of all models of the namespace, whichever is chosen. Parse: bytes become rows. Queue: waiting for the "
            "model, or for others of the same moment. Predict: the model runs, for all of a batch. Encode: the answer "
            "becomes bytes. Around it: routing, logging, sending.",
            Query(stages, "{{stage}}"),
            Query(f"clamp_min({edge} - sum({stages}), 0)", "around it"),
            unit="s",
            bad=SLOW,
            style="stack",
            width=12,
        ),
        trend(
            "p99 by stage",
            "Slowest one in a hundred, of each stage by itself; dashed: the promise, for all of them together.",
            Query(quantile(0.99, _STAGES, MODEL, "stage"), "{{stage}}"),
            unit="s",
            bad=SLOW,
            width=12,
        ),
    ]


def _batches() -> list[Any]:
    return [
        trend(
            "Requests by batch",
            "How many requests ran together, on average and in the largest of a hundred batches: more when the model "
            "is the narrow place, 1 where callers come one by one.",
            Query(f"{by_model(f'{_BATCH}_sum')} / {by_model(f'{_BATCH}_count')}", "{{model}}"),
            Query(quantile(0.99, _BATCH, MODEL, "model"), "{{model}} p99"),
            unit="none",
            bad=CALLERS,
        ),
        trend(
            "Rows by batch",
            "How many rows ran together, on average and in the largest of a hundred batches; dashed: half of what a "
            "batch may have, and all (`batch_rows`).",
            Query(f"{by_model(f'{_ROWS}_sum')} / {by_model(f'{_ROWS}_count')}", "{{model}}"),
            Query(quantile(0.99, _ROWS, MODEL, "model"), "{{model}} p99"),
            unit="none",
            bad=filling(BATCH_ROWS),
        ),
        trend(
            "In flight",
            "Requests that are being answered, by server; dashed: half of what it takes at once, and all "
            "(`max_concurrent`).",
            Query(
                f'sum by (instance) (modelyard_http_requests_in_flight{{{NAMESPACE}, job="modelyard-inference"}})',
                "{{instance}}",
            ),
            unit="none",
            bad=filling(MAX_CONCURRENT),
        ),
    ]


def _canary() -> list[Any]:
    roles = f'{VERSION}, outcome="answered"'
    failed = f'{VERSION}, outcome!="answered"'
    total = by_model(_REQUESTS, VERSION, by="model, role")
    fallbacks = by_model("modelyard_inference_candidate_fallbacks_total", VERSION, by="model, reason")
    dropped = f"increase(modelyard_inference_shadow_dropped_rows_total{{{MODEL}}}[$__rate_interval])"
    return [
        trend(
            "Answered by role",
            "Who answered; shadow copies are answers that nobody gets.",
            Query(by_model(_REQUESTS, roles, by="model, role"), "{{model}} {{role}}"),
            unit="reqps",
            bad=CALLERS,
        ),
        trend(
            "p99 by role",
            "The candidate's latency beside the champion's.",
            Query(quantile(0.99, _PREDICT, VERSION, "model", "role"), "{{model}} {{role}}"),
            unit="s",
            bad=SLOW,
        ),
        trend(
            "Failures by role",
            "Share of requests that a role did not answer.",
            Query(
                f"({by_model(_REQUESTS, failed, by='model, role')} or 0 * {total}) / {total}",
                "{{model}} {{role}}",
            ),
            unit="percentunit",
            bad=ERRORS,
        ),
        trend(
            "Share that was meant for the candidate",
            "Weight in the routing table; in shadow it is 0.",
            Query(latest("modelyard_registry_candidate_weight_percent"), "{{model}}"),
            unit="percent",
            bad=MANIFEST,
            style="step",
            most=100,
        ),
        trend(
            "Answered instead of the candidate",
            "Share of a model's requests that the champion answered because the candidate did not.",
            Query(
                or_none(f"{fallbacks} / on (model) group_left () {by_model(_REQUESTS, VERSION)}", "reason"),
                "{{model}} {{reason}}",
            ),
            unit="percentunit",
            bad=ERRORS,
        ),
        trend(
            "Shadow copies",
            "Copies that wait for the candidate, and copies that found no room; dashed: half of the room of a server, "
            "and all (`shadow_rows`).",
            Query(f"max(modelyard_inference_shadow_waiting_rows{{{NAMESPACE}}})", "waiting"),
            Query(
                f"sum({dropped}) or vector(0)",
                "dropped",
            ),
            unit="none",
            bad=filling(SHADOW_ROWS),
        ),
    ]


def _saturation() -> list[Any]:
    return [
        trend(
            "Waiting for a thread",
            "Requests in the queues of the thread pools, by pool; dashed: half of what a server takes at once, and all "
            "(`max_concurrent`).",
            Query(f"sum by (lane) (modelyard_inference_lane_waiting_requests{{{NAMESPACE}}})", "{{lane}} waiting"),
            Query(f"sum by (lane) (modelyard_inference_lane_lost_threads{{{NAMESPACE}}})", "{{lane}} hanging"),
            unit="none",
            bad=filling(MAX_CONCURRENT),
        ),
        trend(
            "Spool",
            "Share of the spool that waits for drift, by server.",
            Query(
                f"max by (instance) (modelyard_inference_spool_pending_bytes{{{NAMESPACE}}}"
                f" / modelyard_inference_spool_limit_bytes{{{NAMESPACE}}})",
                "{{instance}}",
            ),
            unit="percentunit",
            bad=stages(LIMITS["spool_share"], LIMITS["busy_share"]),
        ),
        trend(
            "Bodies",
            "Share of what the bodies of all requests may take together (`max_held_bytes`), by server; with all of it "
            "taken the next large one is refused (429).",
            Query(
                f"max by (instance) (modelyard_inference_bodies_held_bytes{{{NAMESPACE}}}"
                f" / modelyard_inference_bodies_limit_bytes{{{NAMESPACE}}})",
                "{{instance}}",
            ),
            unit="percentunit",
            bad=above(LIMITS["busy_share"]),
        ),
        trend(
            "Models in memory",
            "What loaded models take, as estimated, and the budget; both 0 without a budget (`memory_budget_bytes`).",
            Query(f"sum by (instance) (modelyard_inference_models_in_memory_bytes{{{NAMESPACE}}})", "{{instance}}"),
            Query(f"max(modelyard_inference_models_in_memory_limit_bytes{{{NAMESPACE}}})", "budget"),
            unit="bytes",
            bad=Unjudged("a budget that is full is as it should be."),
        ),
        trend(
            "Models that made room",
            "Evictions a second: each is a request later that waits for its model to be loaded.",
            Query(
                f"sum by (instance) ({per_second(f'modelyard_inference_models_evicted_total{{{NAMESPACE}}}')})",
                "{{instance}}",
            ),
            unit="cps",
            bad=Unjudged("how many are too many depends on how many models share the budget."),
        ),
        trend(
            "Age of the routing",
            "Since a server knew that its routing is the registry's.",
            Query(f"max by (instance) (modelyard_inference_routing_age_seconds{{{NAMESPACE}}})", "{{instance}}"),
            unit="s",
            bad=above(LIMITS["routing_age_s"]),
        ),
    ]
