"""Cases of the alerts about services, and about the prediction log between them."""

from __future__ import annotations

from tests.observability.alert_case import HTTP, MODEL, NM, Case

__all__ = ["LOGS", "SERVICES"]

_AT = 'namespace="n",instance="a"'
LOGS = (
    Case(
        "SpoolGrows",
        {
            f"modelyard_inference_spool_pending_bytes{{{_AT}}}": "20+1x40",
            f"modelyard_inference_spool_limit_bytes{{{_AT}}}": "100x40",
        },
        "35m",
        {"namespace": "n", "instance": "a"},
        "Predictions pile up on a",
        "Its spool is 55% full and grows: drift does not take what was answered.",
        calm=(
            {f"modelyard_inference_spool_pending_bytes{{{_AT}}}": "60-1x40"},
            {f"modelyard_inference_spool_pending_bytes{{{_AT}}}": "0+0.1x40"},
        ),
    ),
    Case(
        "PredictionLogLosesEvents",
        {f'modelyard_inference_events_dropped_total{{{_AT},reason="full"}}': "0x5 8x20"},
        "8m",
        {"namespace": "n", "instance": "a"},
        "Predictions on a are not logged",
        "Within ten minutes 8 were dropped: drift and rollouts judge by an incomplete log.",
        calm=({f'modelyard_inference_events_dropped_total{{{_AT},reason="full"}}': "8x20"},),
        severity="critical",
    ),
    Case(
        "DriftIsBehind",
        {f"modelyard_drift_backlog_rows{{{NM}}}": "20000x20"},
        "16m",
        MODEL,
        "Windows of m lag behind",
        "20k rows have come and were not looked at: what drift says is old.",
        calm=({f"modelyard_drift_backlog_rows{{{NM}}}": "20000x10 0x10"},),
    ),
)

_OTHER = 'namespace="n",job="modelyard-drift",route="/v1/events"'
_ALL_UP = {
    f'up{{{_AT},job="modelyard-{service}"}}': "1x10" for service in ("inference", "registry", "training", "drift")
}
_DOWN_SAYS = "Prometheus cannot scrape it, or finds no process of it. The others go on with what they last knew."
SERVICES = (
    Case(
        "ServiceIsDown",
        {**_ALL_UP, f'up{{{_AT},job="modelyard-drift"}}': "0x10"},
        "4m",
        {"namespace": "n", "instance": "a", "job": "modelyard-drift"},
        "modelyard-drift on a does not answer",
        _DOWN_SAYS,
        calm=(
            {f'up{{{_AT},job="modelyard-drift"}}': "0 0 1x8"},
            {f'up{{{_AT},job="modelyard-drift"}}': "1x10", f'up{{{_AT},job="other"}}': "0x10"},
        ),
        severity="critical",
    ),
    *(
        Case(
            "ServiceIsDown",
            {**_ALL_UP, f'up{{{_AT},job="modelyard-{gone}"}}': "1x2 stale"},
            "8m",
            {"namespace": "n", "job": f"modelyard-{gone}"},
            f"modelyard-{gone} does not answer",
            _DOWN_SAYS,
            calm=(
                # Its pod was replaced; and there is no platform in the other namespace that would miss it.
                {f'up{{{_AT},job="modelyard-{gone}"}}': "1x2 stale _x1 1x6"},
                {f'up{{{_AT},job="modelyard-{gone}"}}': "1x10", 'up{namespace="o",job="other"}': "1x10"},
            ),
            severity="critical",
            way=f"no-target-of-{gone}",
        )
        for gone in ("inference", "registry", "training", "drift")
    ),
    Case(
        "ServiceIsDown",
        {'up{namespace="o",job="other"}': "1x10"},
        "4m",
        {"job": "modelyard"},
        "modelyard does not answer",
        _DOWN_SAYS,
        calm=(_ALL_UP,),
        severity="critical",
        way="no-target-at-all",
    ),
    Case(
        "ServiceFails",
        {f'{HTTP}{{{_OTHER},status="500"}}': "0+10x30", f'{HTTP}{{{_OTHER},status="200"}}': "0+90x30"},
        "25m",
        {"namespace": "n", "job": "modelyard-drift"},
        "modelyard-drift fails",
        "10% of its requests end in an error of its own.",
        calm=(
            {f'{HTTP}{{{_OTHER},status="500"}}': "0+1x30"},
            # Not to be ready is no failure.
            {
                f'{HTTP}{{{_OTHER},status="500"}}': "0+0x30",
                f'{HTTP}{{namespace="n",job="modelyard-drift",route="/health/ready",status="503"}}': "0+50x30",
            },
        ),
    ),
    Case(
        "TaskFails",
        {'modelyard_task_failures_total{namespace="n",job="modelyard-drift",task="processing"}': "0+1x30"},
        "25m",
        {"namespace": "n", "job": "modelyard-drift", "task": "processing"},
        "The task processing of modelyard-drift fails again and again",
        "It raised 15 times within a quarter of an hour, and is run again each time.",
        calm=({'modelyard_task_failures_total{namespace="n",job="modelyard-drift",task="processing"}': "0x10 2x20"},),
    ),
    Case(
        "RoutingIsOld",
        {f"modelyard_inference_routing_age_seconds{{{_AT}}}": "300x10"},
        "6m",
        {"namespace": "n", "instance": "a"},
        "a does not hear the registry",
        "It serves what it knew 5m 0s ago: promotions and rollbacks do not reach it.",
        calm=({f"modelyard_inference_routing_age_seconds{{{_AT}}}": "300x3 0x7"},),
    ),
    Case(
        "MirrorIsBehind",
        {'modelyard_registry_mirror_pending{namespace="n"}': "2x40"},
        "31m",
        {"namespace": "n"},
        "MLflow does not show what is governed",
        "2 models look otherwise in MLflow than in the registry. Serving is not concerned.",
        calm=({'modelyard_registry_mirror_pending{namespace="n"}': "2x20 0x20"},),
    ),
    Case(
        "OperatorHasNoLeader",
        {'modelyard_operator_leader{namespace="n",instance="a"}': "0x10"},
        "6m",
        {"namespace": "n"},
        "No operator leads",
        "Changes of ManagedModel objects are not carried out, and their status is old.",
        calm=({'modelyard_operator_leader{namespace="n",instance="b"}': "1x10"},),
    ),
    Case(
        "OperatorHasNoLeader",
        {'modelyard_operator_leader{namespace="n",instance="a"}': "1x2 stale"},
        "9m",
        {"namespace": "n"},
        "No operator leads",
        "Changes of ManagedModel objects are not carried out, and their status is old.",
        calm=(
            # Another replica has taken over; and there has never been one.
            {'modelyard_operator_leader{namespace="n",instance="b"}': "_x4 1x10"},
            {'modelyard_operator_leader{namespace="n",instance="a"}': "_x10"},
        ),
        way="no-replica",
    ),
    Case(
        "OperatorCannotReconcile",
        {'modelyard_operator_object_failures_total{namespace="n"}': "0+1x60"},
        "40m",
        {"namespace": "n"},
        "The operator cannot bring on some ManagedModel objects",
        "15 attempts failed within a quarter of an hour.",
        calm=({'modelyard_operator_object_failures_total{namespace="n"}': "0x10 2x50"},),
    ),
)
