"""Service health: utilisation, saturation and errors of each process, and what waits between them."""

from __future__ import annotations

from typing import Any

from tools.observability.alerts import NO_PROBES as ASKED
from tools.observability.dashboards.words import by_model, growth, latest, or_none, per_second, quantile
from tools.observability.frame import NAMESPACE, Frame
from tools.observability.panels import BAD_WHEN_ANY, Query, number, trend

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
            bad=((None, "green"), (0.01, "orange"), (0.05, "red")),
            decimals=2,
        ),
        number(
            "Tasks that failed",
            "Background tasks that raised within an hour, and were run again.",
            f"sum(increase(modelyard_task_failures_total{{{_OURS}}}[1h])) or vector(0)",
            unit="none",
            decimals=0,
            bad=((None, "green"), (1, "orange"), (10, "red")),
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
            bad=BAD_WHEN_ANY,
        ),
    ]


def _use() -> list[Any]:
    return [
        trend(
            "CPU",
            "Cores in use, by service.",
            Query(by_model("process_cpu_seconds_total", _OURS, by="job, instance"), "{{job}}"),
            unit="none",
        ),
        trend(
            "Memory",
            "Resident memory, by service.",
            Query(f"sum by (job, instance) (process_resident_memory_bytes{{{_OURS}}})", "{{job}}"),
            unit="bytes",
        ),
        trend(
            "Open files",
            "Share of the file descriptors that a process may have.",
            Query(f"max by (job, instance) (process_open_fds{{{_OURS}}} / process_max_fds{{{_OURS}}})", "{{job}}"),
            unit="percentunit",
            bad=((None, "green"), (0.5, "orange"), (0.8, "red")),
        ),
    ]


def _errors() -> list[Any]:
    failed = f'{_OURS}, {ASKED}, status=~"5.."'
    slowest = quantile(0.99, "modelyard_http_request_seconds", f'{_OURS}, route!="/v1/watch"', "job")
    return [
        trend(
            "Requests",
            "Requests by service.",
            Query(by_model("modelyard_http_requests_total", _OURS, by="job"), "{{job}}"),
            unit="reqps",
        ),
        trend(
            "Errors by route",
            "Requests that ended in an error of ours, by route.",
            Query(
                or_none(f"topk(10, {by_model('modelyard_http_requests_total', failed, by='job, route')} > 0)", "route"),
                "{{job}} {{route}}",
            ),
            unit="reqps",
        ),
        trend(
            "p99",
            "Slowest one in a hundred requests; watches, which last, are left out.",
            Query(slowest, "{{job}}"),
            unit="s",
            bad=((None, "green"), (1, "orange")),
        ),
        trend(
            "In flight",
            "Requests that are being answered.",
            Query(f"sum by (job) (modelyard_http_requests_in_flight{{{_OURS}}})", "{{job}}"),
            unit="none",
        ),
        trend(
            "Tasks that failed",
            "Background tasks that raised, by task.",
            Query(
                or_none(f"sum by (job, task) ({growth(f'modelyard_task_failures_total{{{_OURS}}}')}) > 0", "task"),
                "{{job}} {{task}}",
            ),
            unit="none",
            style="bars",
        ),
        trend(
            "Open watches",
            "Servers that follow the registry.",
            Query(f"sum(modelyard_registry_watchers{{{NAMESPACE}}})", "watches"),
            unit="none",
        ),
    ]


def _queues() -> list[Any]:
    pending = latest("modelyard_drift_pending_commands_count", _ALL)
    return [
        trend(
            "Inference to drift: spool",
            "Bytes of answered predictions that drift does not have yet.",
            Query(f"sum by (instance) (modelyard_inference_spool_pending_bytes{{{NAMESPACE}}})", "{{instance}}"),
            unit="bytes",
        ),
        trend(
            "Inference to drift: events",
            "Delivered, refused (kept apart), dropped (no room).",
            Query(f"sum({per_second(f'modelyard_inference_events_sent_total{{{NAMESPACE}}}')})", "sent"),
            Query(f"sum({per_second(f'modelyard_inference_events_refused_total{{{NAMESPACE}}}')})", "refused"),
            Query(
                f"sum({per_second(f'modelyard_inference_events_dropped_total{{{NAMESPACE}}}')}) or vector(0)", "dropped"
            ),
            unit="cps",
        ),
        trend(
            "Drift: rows not looked at",
            "Rows in the log that windows have not seen.",
            Query(f"sum({latest('modelyard_drift_backlog_rows', _ALL)})", "rows"),
            unit="none",
            bad=((None, "green"), (10_000, "orange")),
        ),
        trend(
            "Drift to training: outbox",
            "Retrain commands that training has not taken.",
            Query(f"sum({pending})", "commands"),
            unit="none",
            bad=((None, "green"), (1, "orange")),
        ),
        trend(
            "Registry to inference: routing",
            "Since a server knew that its routing is the registry's.",
            Query(f"max by (instance) (modelyard_inference_routing_age_seconds{{{NAMESPACE}}})", "{{instance}}"),
            unit="s",
            bad=((None, "green"), (120, "orange")),
        ),
        trend(
            "Registry to MLflow: mirror",
            "Models whose mirror is behind.",
            Query(f"max(modelyard_registry_mirror_pending{{{NAMESPACE}}})", "models"),
            unit="none",
            bad=((None, "green"), (1, "orange")),
        ),
    ]


def _operator() -> list[Any]:
    return [
        trend(
            "Leaders",
            "Operators that lead: one, or nobody does.",
            Query(f"sum(modelyard_operator_leader{{{NAMESPACE}}})", "leaders"),
            unit="none",
            style="step",
        ),
        trend(
            "Actions",
            "What the operator did, by kind.",
            Query(by_model("modelyard_operator_actions_total", NAMESPACE, by="action"), "{{action}}"),
            unit="ops",
        ),
        trend(
            "Rounds",
            "Time to look at all objects once, and objects that could not be brought on.",
            Query(quantile(0.95, "modelyard_operator_round_seconds", NAMESPACE), "p95"),
            Query(
                f"sum(increase(modelyard_operator_object_failures_total{{{NAMESPACE}}}[$__rate_interval]))", "failures"
            ),
            unit="s",
        ),
    ]
