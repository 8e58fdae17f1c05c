"""What somebody is told, and what is computed ahead for it.

An alert is worth one line here and one page under docs/runbooks. ``critical`` wakes somebody: users notice, or will
within the hour. ``warning`` is for the day. Numbers that an installation may see otherwise stand in ``limits``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tools.observability import slo
from tools.observability.limits import DAY_S, LIMITS
from tools.observability.slo import BURNS, Objectives, burn_alert_name, burn_expr

__all__ = ["ALERTS", "NO_PROBES", "RUNBOOKS", "RUNBOOK_BASE", "Alert", "documents"]

RUNBOOKS = "docs/runbooks"
"""Where the pages are in the repository: what a link says until somebody says under which address people find them."""
RUNBOOK_BASE = f"{{{{ with $externalLabels.runbooks }}}}{{{{ . }}}}{{{{ else }}}}{RUNBOOKS}{{{{ end }}}}"
"""That address: an external label of Prometheus, which compose sets; the chart replaces all of this by its value."""
_MODEL = "by (namespace, model)"
NO_PROBES = 'route!~".*/ready|/health.*"'
"""A service that says that it is not ready does what it is asked to do."""
_SERVED_BY = 'up{job="modelyard-inference"}'
_OTHERS = f'job=~"modelyard-(registry|training|drift|operator)", {NO_PROBES}'
"""What inference promises has an alert of its own."""
_NEEDED = ("inference", "registry", "training", "drift")
"""The services that every installation has."""
_ANY = f'up{{job=~"modelyard-({"|".join(_NEEDED)})"}}'
_LEADS = "modelyard_operator_leader"
_CHAMPION = f"max {_MODEL} (modelyard_registry_champion_number)"
_UNTIL = f"max {_MODEL} (modelyard_registry_champion_data_until_seconds)"
_SERVERS = (
    f"(count by (namespace) ({_SERVED_BY} == 1) or count by (namespace) ({_SERVED_BY}) "
    "or group by (namespace) (modelyard_registry_champion_number))"
)
"""How many should serve a champion: those that answer; where none does, all; where there is none, one."""
_SERVING_IT = f'modelyard_inference_served_number{{role="champion"}} == on (namespace, model) group_left () {_CHAMPION}'


def _gone(service: str) -> str:
    """Return PromQL for the namespaces where the others have targets and a service has none."""
    job = f"modelyard-{service}"
    namespaces = f'group by (namespace) ({_ANY}) unless on (namespace) up{{job="{job}"}}'
    return f'label_replace({namespaces}, "job", "{job}", "", "")'


_DOWN = (
    'up{job=~"modelyard-.*"} == 0',
    # Without a pod there is no target, and nothing that could be 0.
    *(_gone(service) for service in _NEEDED),
    f'label_replace(absent({_ANY}), "job", "modelyard", "", "")',
)

RECORDED: tuple[tuple[str, str], ...] = (
    (
        "model:champion_missing:instances",
        # An instance that knows nothing of the model has no series of it: it is missed by counting those that have.
        f"(({_CHAMPION} > 0) * 0 + on (namespace) group_left () {_SERVERS})\n"
        f"- on (namespace, model) (count {_MODEL} ({_SERVING_IT}) or 0 * {_CHAMPION})",
    ),
    (
        "model:data_age:seconds",
        f"max {_MODEL} (modelyard_drift_watermark_seconds)\n- on (namespace, model) {_UNTIL}\n"
        # Data without event time, and models that were trained elsewhere: nobody knows more than since when it answers.
        f"or time() - max {_MODEL} (modelyard_registry_champion_since_seconds) unless on (namespace, model) {_UNTIL}",
    ),
    (
        "model:labels_late:ratio_delta1d",
        f"max {_MODEL} (delta(modelyard_drift_labels_missing_rows[1d]))\n"
        f"/ on (namespace, model) (max {_MODEL} (delta(modelyard_drift_requests_rows[1d])) > 0)",
    ),
)
"""Names and expressions of recording rules; what a rule or a panel would otherwise say twice."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        wait: how long it must be true.
        summary: one line, for a phone.
        description: what it means for users, with the number.
    """

    name: str
    severity: Literal["critical", "warning"]
    expr: str
    wait: str
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK_BASE}/{self.name}.md",
            },
        }


MODELS = (
    Alert(
        "ModelPerformsBelowFloor",
        "critical",
        f'max {_MODEL} (modelyard_drift_open_episodes_count{{severity="critical"}}) > 0',
        "5m",
        "{{ $labels.model }} performs below the floor of its manifest",
        "Labels say that the answers of {{ $labels.model }} are worse than its manifest allows.",
    ),
    Alert(
        "ModelDrifts",
        "warning",
        f'max {_MODEL} (modelyard_drift_open_episodes_count{{severity="high"}}) > 0',
        "1h",
        "{{ $labels.model }} has drifted for an hour",
        "What {{ $labels.model }} is asked has changed in a feature that matters, and no newer version has ended it.",
    ),
    Alert(
        "ModelIsStale",
        "warning",
        f"model:data_age:seconds > {LIMITS['stale_days']:g} * {DAY_S}",
        "1h",
        "{{ $labels.model }} learned from old data",
        "Its champion has learned nothing of the last {{ $value | humanizeDuration }}: of event time, "
        "or where its data have none, since it is champion.",
    ),
    Alert(
        "ChampionNotServedEverywhere",
        "critical",
        "model:champion_missing:instances > 0",
        "5m",
        "Some inference servers do not serve the champion of {{ $labels.model }}",
        "On {{ $value }} of them callers of {{ $labels.model }} get answers of an older version, or none.",
    ),
    Alert(
        "CandidateTripped",
        "warning",
        f"max {_MODEL} (modelyard_inference_candidate_tripped_state) > 0",
        "5m",
        "The candidate of {{ $labels.model }} failed too often in a row",
        "It gets no more requests where it tripped; the champion answers. Its rollout should have been aborted.",
    ),
    Alert(
        "LabelsAreMissing",
        "warning",
        f"model:labels_late:ratio_delta1d > {LIMITS['missing_labels']:g}\n"
        f"and on (namespace, model) max {_MODEL} (modelyard_drift_labelled_rows) > 0",
        "1h",
        "Labels of {{ $labels.model }} have stopped coming",
        "Of the rows of the last day {{ $value | humanizePercentage }} have no label although it is due: "
        "performance is not known.",
    ),
)

ROADS = (
    Alert(
        "TrainingIsOverdue",
        "warning",
        f"time() - max {_MODEL} (modelyard_training_schedule_due_seconds) > {LIMITS['overdue_s']:g}",
        "5m",
        "A scheduled training of {{ $labels.model }} does not start",
        "Its cron trigger has been due for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TrainingFails",
        "warning",
        f'sum {_MODEL} (increase(modelyard_training_runs_ended_total{{state=~"failed|timed_out"}}[1d])) '
        f"> {LIMITS['failed_in_a_day'] - 0.5:g}\n"
        f"unless on (namespace, model) sum {_MODEL} "
        '(increase(modelyard_training_runs_ended_total{state="succeeded"}[1d])) > 0.5',
        "5m",
        "Training of {{ $labels.model }} fails",
        "Within a day {{ printf `%.0f` $value }} runs failed and none succeeded: {{ $labels.model }} does not learn.",
    ),
    Alert(
        "TrainingQueueIsStuck",
        "warning",
        f"max by (namespace) (modelyard_training_queue_wait_seconds) > {LIMITS['queue_wait_s']:g}",
        "5m",
        "Training runs wait and do not begin",
        "The oldest has waited for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "GateRefuses",
        "warning",
        f'sum {_MODEL} (increase(modelyard_registry_verdicts_total{{decision=~"keep|insufficient"}}[7d])) '
        f"> {LIMITS['refused_in_a_week'] - 0.5:g}\n"
        f"unless on (namespace, model) sum {_MODEL} "
        '(increase(modelyard_registry_verdicts_total{decision=~"promote.*"}[7d])) > 0.5',
        "5m",
        "The gate refuses every new version of {{ $labels.model }}",
        "Within a week {{ printf `%.0f` $value }} versions were judged and none was better: training brings nothing.",
    ),
    Alert(
        "RolloutIsHeld",
        "warning",
        f"time() - max {_MODEL} (modelyard_registry_rollout_step_started_seconds) > {LIMITS['held_s']:g}",
        "5m",
        "The rollout of {{ $labels.model }} does not move",
        "Its step began {{ $value | humanizeDuration }} ago; it waits for evidence, or somebody paused it.",
    ),
    Alert(
        "PromotionWaits",
        "warning",
        f"time() - max {_MODEL} (modelyard_registry_promotion_waiting_since_seconds) > {LIMITS['approval_s']:g}",
        "5m",
        "A version of {{ $labels.model }} waits for somebody to approve it",
        "It was asked for {{ $value | humanizeDuration }} ago, and what serves stays as it is until it is decided.",
    ),
    Alert(
        "CommandsAreNotDelivered",
        "warning",
        f"max {_MODEL} (modelyard_drift_pending_commands_count) > 0",
        "15m",
        "Training does not take the retrain command of {{ $labels.model }}",
        "The loop is open: drift has decided, and {{ $value }} commands wait in its outbox.",
    ),
)

LOGS = (
    Alert(
        "SpoolGrows",
        "warning",
        "max by (namespace, instance) (modelyard_inference_spool_pending_bytes"
        f" / modelyard_inference_spool_limit_bytes) > {LIMITS['spool_share']:g}\n"
        "and on (namespace, instance) deriv(modelyard_inference_spool_pending_bytes[15m]) > 0",
        "15m",
        "Predictions pile up on {{ $labels.instance }}",
        "Its spool is {{ $value | humanizePercentage }} full and grows: drift does not take what was answered.",
    ),
    Alert(
        "PredictionLogLosesEvents",
        "critical",
        "sum by (namespace, instance) (increase(modelyard_inference_events_dropped_total[10m])) > 0",
        "0m",
        "Predictions on {{ $labels.instance }} are not logged",
        "Within ten minutes {{ printf `%.0f` $value }} were dropped: drift and rollouts judge by an incomplete log.",
    ),
    Alert(
        "DriftIsBehind",
        "warning",
        f"max {_MODEL} (modelyard_drift_backlog_rows) > {LIMITS['backlog_rows']:g}",
        "15m",
        "Windows of {{ $labels.model }} lag behind",
        "{{ $value | humanize }} rows have come and were not looked at: what drift says is old.",
    ),
)

SERVICES = (
    Alert(
        "ServiceIsDown",
        "critical",
        "\nor ".join(_DOWN),
        "3m",
        "{{ $labels.job }}{{ with $labels.instance }} on {{ . }}{{ end }} does not answer",
        "Prometheus cannot scrape it, or finds no process of it. The others go on with what they last knew.",
    ),
    Alert(
        "ServiceFails",
        "warning",
        f'sum by (namespace, job) (rate(modelyard_http_requests_total{{{_OTHERS}, status=~"5.."}}[10m]))\n'
        f"/ sum by (namespace, job) (rate(modelyard_http_requests_total{{{_OTHERS}}}[10m])) "
        f"> {LIMITS['failing_share']:g}",
        "10m",
        "{{ $labels.job }} fails",
        "{{ $value | humanizePercentage }} of its requests end in an error of its own.",
    ),
    Alert(
        "TaskFails",
        "warning",
        f"sum by (namespace, job, task) (increase(modelyard_task_failures_total[15m])) > {LIMITS['task_failures']:g}",
        "5m",
        "The task {{ $labels.task }} of {{ $labels.job }} fails again and again",
        "It raised {{ printf `%.0f` $value }} times within a quarter of an hour, and is run again each time.",
    ),
    Alert(
        "RoutingIsOld",
        "warning",
        f"max by (namespace, instance) (modelyard_inference_routing_age_seconds) > {LIMITS['routing_age_s']:g}",
        "5m",
        "{{ $labels.instance }} does not hear the registry",
        "It serves what it knew {{ $value | humanizeDuration }} ago: promotions and rollbacks do not reach it.",
    ),
    Alert(
        "MirrorIsBehind",
        "warning",
        "max by (namespace) (modelyard_registry_mirror_pending) > 0",
        "30m",
        "MLflow does not show what is governed",
        "{{ $value }} models look otherwise in MLflow than in the registry. Serving is not concerned.",
    ),
    Alert(
        "OperatorHasNoLeader",
        "warning",
        f"max by (namespace) ({_LEADS}) == 0\n"
        # Nobody says that nobody leads when no replica runs; without Kubernetes there never was one.
        f"or group by (namespace) (last_over_time({_LEADS}[1d])) unless on (namespace) {_LEADS}",
        "5m",
        "No operator leads",
        "Changes of ManagedModel objects are not carried out, and their status is old.",
    ),
    Alert(
        "OperatorCannotReconcile",
        "warning",
        f"sum by (namespace) (increase(modelyard_operator_object_failures_total[15m])) > {LIMITS['object_failures']:g}",
        "15m",
        "The operator cannot bring on some ManagedModel objects",
        "{{ printf `%.0f` $value }} attempts failed within a quarter of an hour.",
    ),
)

ALERTS: Mapping[str, tuple[Alert, ...]] = {"models": MODELS, "roads": ROADS, "logs": LOGS, "services": SERVICES}
"""By the group in which they are evaluated."""


def burn_alerts(objectives: Objectives) -> list[Alert]:
    """Return the alerts about budgets that are spent too fast."""
    return [
        Alert(
            burn_alert_name(one),
            "critical" if burn.severity == "critical" else "warning",
            burn_expr(one, burn),
            burn.wait,
            f"{one.title} is being lost",
            f"{one.promise} Its error budget is spent {burn.rate:g} times too fast "
            f"(over {burn.long} and {burn.short}): {{{{ $value | humanizePercentage }}}} of requests are bad.",
            {"slo": one.name, "long": burn.long},
        )
        for one in objectives.objectives
        for burn in BURNS
    ]


def documents(objectives: Objectives) -> dict[str, dict[str, Any]]:
    """Return the rule files by name: what Prometheus reads, and what a PrometheusRule has as its spec."""
    recorded = [{"record": name, "expr": expr} for name, expr in RECORDED]
    burns = [alert.rule() for alert in burn_alerts(objectives)]
    return {
        "slo": {
            "groups": [
                {"name": "modelyard-slo-recording", "rules": slo.recording_rules(objectives)},
                {"name": "modelyard-slo", "rules": burns},
            ]
        },
        "alerts": {
            "groups": [
                {"name": "modelyard-recording", "rules": recorded},
                *(
                    {"name": f"modelyard-{group}", "rules": [alert.rule() for alert in alerts]}
                    for group, alerts in ALERTS.items()
                ),
            ]
        },
    }
