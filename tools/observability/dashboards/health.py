"""Service health: utilisation, saturation and errors of each process, and what waits between them."""

from __future__ import annotations

from typing import Any

from tools.observability.alerts import NO_PROBES as ASKED
from tools.observability.dashboards.words import CALLERS, by_model, growth, latest, or_none, per_second, quantile
from tools.observability.frame import NAMESPACE, Frame
from tools.observability.limits import (
    ANY,
    LIMITS,
    MAX_CONCURRENT,
    MAX_WATCHERS,
    RESYNC_S,
    above,
    filling,
    stages,
)
from tools.observability.panels import Query, Unjudged, number, trend

__all__ = ["document"]

_OURS = f'{NAMESPACE}, job=~"modelyard-.*"'
_ALL = NAMESPACE


def document() -> dict[str, Any]:
    """Return the dashboard."""
    frame = Frame(
        "modelyard-health",
        "Modelyard / Service health",
        "How busy each process is, what it fails at, and what waits between the services.",
        by_model=False,
    )
    return (
        frame.row("Is every service up?", *_first())
        .row("Utilisation", *_use())
        .row("Requests and errors", *_errors())
        .row("What waits between the services", *_queues())
        .row("Operator", *_operator())
        .document()
    )


def _first() -> list[Any]:
    up = [
        number(
            name.capitalize(),
            f"Servers of {name} that answer Prometheus.",
            f'sum(up{{{NAMESPACE}, job="modelyard-{name}"}})',
            unit="none",
            bad=((None, "red"), (1, "green")),
            none="absent",
        )
        for name in ("inference", "registry", "training", "drift")
    ]
    return [
        *up,
        number(
            "Errors",
            "Share of all requests that ended in an error of ours (5xx).",
            f"(sum({per_second(f'modelyard_http_requests_total{{{_OURS}, {ASKED}, status=~`5..`}}')}) or vector(0))"
            f" / sum({per_second(f'modelyard_http_requests_total{{{_OURS}}}')})",
            unit="percentunit",
            bad=stages(LIMITS["failing_share"] / 5, LIMITS["failing_share"]),
            decimals=2,
        ),
        number(
            "Tasks that failed",
            "Background tasks that raised within an hour, and were run again.",
            f"sum(increase(modelyard_task_failures_total{{{_OURS}}}[1h])) or vector(0)",
            unit="none",
            decimals=0,
            bad=stages(1, 4 * LIMITS["task_failures"]),
        ),
        number(
            "Restarts in an hour",
            "Processes that began anew.",
            f"sum(changes(process_start_time_seconds{{{_OURS}}}[1h]))",
            unit="none",
            bad=((None, "green"), (1, "orange"), (4, "red")),
        ),
        number(
            "Events lost in an hour",
            "Predictions that found no room in the spool.",
            f"sum(increase(modelyard_inference_events_dropped_total{{{NAMESPACE}}}[1h])) or vector(0)",
            unit="none",
            decimals=0,
            bad=ANY,
        ),
    ]


def _use() -> list[Any]:
    busy = per_second(f"process_cpu_seconds_total{{{_OURS}}}")
    return [
        trend(
            "CPU",
            "Share in use of the cores that a process may keep busy: of its container's, else of the machine's.",
            Query(f"max by (job, instance) ({busy} / modelyard_process_cpu_limit_cores{{{_OURS}}})", "{{job}}"),
            unit="percentunit",
            bad=above(LIMITS["busy_share"]),
        ),
        trend(
            "Memory",
            "Resident share of the memory that a process may have; at 100 % it is killed.",
            Query(
                f"max by (job, instance) (process_resident_memory_bytes{{{_OURS}}}"
                f" / modelyard_process_memory_limit_bytes{{{_OURS}}})",
                "{{job}}",
            ),
            unit="percentunit",
            bad=above(LIMITS["busy_share"]),
        ),
        trend(
            "Open files",
            "Share of the file descriptors that a process may have.",
            Query(f"max by (job, instance) (process_open_fds{{{_OURS}}} / process_max_fds{{{_OURS}}})", "{{job}}"),
            unit="percentunit",
            bad=above(LIMITS["busy_share"]),
        ),
    ]


def _errors() -> list[Any]:
    failed = f'{_OURS}, {ASKED}, status=~"5.."'
    errors = by_model("modelyard_http_requests_total", failed, by="job, route")
    asked = by_model("modelyard_http_requests_total", _OURS, by="job, route")
    slowest = quantile(0.99, "modelyard_http_request_seconds", f'{_OURS}, route!="/v1/watch"', "job")
    return [
        trend(
            "Requests",
            "Requests by service.",
            Query(by_model("modelyard_http_requests_total", _OURS, by="job"), "{{job}}"),
            unit="reqps",
            bad=CALLERS,
        ),
        trend(
            "Errors by route",
            "Share of the requests of a route that ended in an error of ours: the ten worst routes.",
            Query(or_none(f"topk(10, {errors} / {asked} > 0)", "route"), "{{job}} {{route}}"),
            unit="percentunit",
            bad=above(LIMITS["failing_share"]),
        ),
        trend(
            "p99",
            "Slowest one in a hundred requests; watches, which last, are left out.",
            Query(slowest, "{{job}}"),
            unit="s",
            bad=above(LIMITS["slow_request_s"]),
        ),
        trend(
            "In flight",
            "Requests that are being answered, by process; dashed: half of what inference takes at once, and all "
            "(`max_concurrent`).",
            Query(f"max by (job) (modelyard_http_requests_in_flight{{{_OURS}}})", "{{job}}"),
            unit="none",
            bad=filling(MAX_CONCURRENT),
        ),
        trend(
            "Tasks that failed",
            "Background tasks that raised, by task.",
            Query(
                or_none(f"sum by (job, task) ({growth(f'modelyard_task_failures_total{{{_OURS}}}')}) > 0", "task"),
                "{{job}} {{task}}",
            ),
            unit="none",
            bad=above(LIMITS["task_failures"]),
            style="bars",
        ),
        trend(
            "Open watches",
            "Servers that follow the registry; dashed: half of the watches that one replica may have, and all "
            "(`max_watchers`).",
            Query(f"max by (instance) (modelyard_registry_watchers{{{NAMESPACE}}})", "{{instance}}"),
            unit="none",
            bad=filling(MAX_WATCHERS),
        ),
    ]


def _queues() -> list[Any]:
    pending = latest("modelyard_drift_pending_commands_count", _ALL)
    return [
        trend(
            "Inference to drift: spool",
            "Bytes of answered predictions that drift does not have yet, and from where on somebody is told.",
            Query(f"sum by (instance) (modelyard_inference_spool_pending_bytes{{{NAMESPACE}}})", "{{instance}}"),
            Query(
                f"min(modelyard_inference_spool_limit_bytes{{{NAMESPACE}}}) * {LIMITS['spool_share']:g}",
                "somebody is told",
            ),
            unit="bytes",
            bad=Unjudged("each installation has its own limit, which is a line here."),
        ),
        trend(
            "Inference to drift: lost",
            "Predictions that drift refused (they are kept apart), and that the spool had no room for.",
            Query(f"sum({growth(f'modelyard_inference_events_refused_total{{{NAMESPACE}}}')})", "refused"),
            Query(f"sum({growth(f'modelyard_inference_events_dropped_total{{{NAMESPACE}}}')}) or vector(0)", "dropped"),
            unit="none",
            style="bars",
            bad=ANY,
        ),
        trend(
            "Drift: rows not looked at",
            "Rows in the log that windows have not seen.",
            Query(f"sum({latest('modelyard_drift_backlog_rows', _ALL)})", "rows"),
            unit="none",
            bad=above(LIMITS["backlog_rows"]),
        ),
        trend(
            "Drift to training: outbox",
            "Retrain commands that training has not taken.",
            Query(f"sum({pending})", "commands"),
            unit="none",
            bad=above(1),
        ),
        trend(
            "Registry to inference: routing",
            "Since a server knew that its routing is the registry's.",
            Query(f"max by (instance) (modelyard_inference_routing_age_seconds{{{NAMESPACE}}})", "{{instance}}"),
            unit="s",
            bad=above(LIMITS["routing_age_s"]),
        ),
        trend(
            "Registry to MLflow: mirror",
            "Models whose mirror is behind.",
            Query(f"max(modelyard_registry_mirror_pending{{{NAMESPACE}}})", "models"),
            unit="none",
            bad=above(1),
        ),
    ]


def _operator() -> list[Any]:
    return [
        trend(
            "Leaders",
            "Operators that lead a namespace: one, or nobody does.",
            Query(f"sum by (namespace) (modelyard_operator_leader{{{NAMESPACE}}})", "{{namespace}}"),
            unit="none",
            style="step",
            bad=((None, "red"), (1, "green"), (2, "red")),
            width=6,
        ),
        trend(
            "Actions",
            "What the operator did, by kind.",
            Query(by_model("modelyard_operator_actions_total", NAMESPACE, by="action"), "{{action}}"),
            unit="ops",
            bad=Unjudged("an action is the operator at work."),
            width=6,
        ),
        trend(
            "Rounds, p95",
            "Time to look at all objects once; dashed: the next round is due by then (`resync_s`).",
            Query(quantile(0.95, "modelyard_operator_round_seconds", NAMESPACE), "p95"),
            unit="s",
            bad=above(RESYNC_S),
            width=6,
        ),
        trend(
            "Objects that failed",
            "Objects that a round could not bring on; the log says which, and why.",
            Query(f"sum({growth(f'modelyard_operator_object_failures_total{{{NAMESPACE}}}')})", "objects"),
            unit="none",
            style="bars",
            bad=above(LIMITS["object_failures"]),
            width=6,
        ),
    ]
