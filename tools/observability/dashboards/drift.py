"""Drift and performance: what changed, how much it matters, what was decided."""

from __future__ import annotations

from typing import Any

from tools.observability.dashboards.words import CALLERS, SEVERITIES, by_model, growth, latest
from tools.observability.frame import MODEL, NAMESPACE, Frame
from tools.observability.limits import ANY, LIMITS, MAX_WAITING, PSI, STALE_S, above, filling, stages
from tools.observability.panels import Query, Unjudged, history, number, states, trend

__all__ = ["document"]

_PSI = f"max by (model, feature) (modelyard_drift_feature_psi_ratio{{{MODEL}}})"
_EPISODES = "modelyard_drift_open_episodes_count"


def document() -> dict[str, Any]:
    """Return the dashboard."""
    frame = Frame(
        "modelyard-drift",
        "Modelyard / Drift and performance",
        "Which features changed, whether the answers still hold, and what drift decided about it.",
    )
    return (
        frame.row("Does the model still fit?", *_first())
        .row("What changed", *_changed())
        .row("How well it does", *_performance())
        .row("Episodes and decisions", *_decisions())
        .row("What drift has to go by", *_log())
        .document()
    )


def _first() -> list[Any]:
    return [*_findings(), *_grounds()]


def _findings() -> list[Any]:
    """Return what drift has found."""
    return [
        number(
            "Worst severity",
            "Of the last window that was scored against the champion, over all selected models.",
            f"max({latest('modelyard_drift_severity_level')})",
            unit="none",
            bad=((None, "text"), (0, "green"), (1, "yellow"), (2, "orange"), (3, "red")),
            words=SEVERITIES,
        ),
        number(
            "Open episodes",
            "Lasting changes that nothing has ended yet.",
            f"sum(max by (model, severity) ({_EPISODES}{{{MODEL}}}))",
            unit="none",
            bad=above(1),
        ),
        number(
            "Largest shift",
            f"Largest PSI of a feature in the last scored window; from {PSI[2][0]:g} on it is significant.",
            f"max({_PSI})",
            unit="none",
            bad=PSI,
            decimals=2,
        ),
        number(
            "Room above the floor",
            "Performance less the floor of the manifest, of the model that is nearest to it.",
            f"min({latest('modelyard_drift_performance_ratio')} - {latest('modelyard_drift_performance_bound_ratio')})",
            unit="none",
            bad=((None, "red"), (0, "orange"), (0.05, "green")),
            decimals=3,
            none="no floor",
        ),
    ]


def _grounds() -> list[Any]:
    """Return what it has to go by."""
    missing = "modelyard_drift_labels_missing_rows"
    return [
        number(
            "Commands, undelivered",
            "Retrain commands that training has not taken.",
            f"sum({latest('modelyard_drift_pending_commands_count')})",
            unit="none",
            bad=ANY,
        ),
        number(
            "Labels late",
            "Share of answered rows whose label is due and has not come.",
            f"max({latest(missing)} / {latest('modelyard_drift_requests_rows')})",
            unit="percentunit",
            bad=stages(0.4 * LIMITS["missing_labels"], LIMITS["missing_labels"]),
            decimals=1,
        ),
        number(
            "Rows not looked at",
            "Rows that have come and that windows have not seen.",
            f"sum({latest('modelyard_drift_backlog_rows')})",
            unit="none",
            bad=stages(0.1 * LIMITS["backlog_rows"], LIMITS["backlog_rows"]),
        ),
        number(
            "Windows closed",
            "Ever, over all selected models.",
            f"sum({latest('modelyard_drift_windows_count')})",
            unit="none",
            bad=Unjudged("it only grows."),
        ),
    ]


def _changed() -> list[Any]:
    return [
        history(
            "Shift by feature",
            "PSI against the champion's frozen reference in the newest window at each moment: a row a feature. "
            "`prediction` is the model's own answers.",
            Query(_PSI, "{{model}} {{feature}}"),
            unit="none",
            bad=PSI,
        ),
        states(
            "Severity",
            "Of the last scored window, by model.",
            Query(latest("modelyard_drift_severity_level"), "{{model}}"),
            words=SEVERITIES,
        ),
        trend(
            "Shift of the answers",
            f"PSI of the model's own answers; from {PSI[2][0]:g} on it is significant.",
            Query(f'max by (model) (modelyard_drift_feature_psi_ratio{{{MODEL}, feature="prediction"}})', "{{model}}"),
            unit="none",
            bad=PSI,
            width=12,
            style="step",
        ),
    ]


def _performance() -> list[Any]:
    performance = f"max by (model, metric) (modelyard_drift_performance_ratio{{{MODEL}}})"
    bound = f"max by (model, metric) (modelyard_drift_performance_bound_ratio{{{MODEL}}})"
    return [
        trend(
            "Performance with labels",
            "The champion's metric over the newest window whose labels have come, and its floor.",
            Query(performance, "{{model}} {{metric}}"),
            Query(bound, "{{model}} floor of {{metric}}"),
            unit="none",
            bad=Unjudged("each model has its own floor, which is a line here."),
            width=12,
            style="step",
        ),
        trend(
            "Labels",
            "Labels that came, by what became of them.",
            Query(by_model("modelyard_drift_labels_total", MODEL, by="model, outcome"), "{{model}} {{outcome}}"),
            unit="cps",
            bad=CALLERS,
            width=12,
        ),
        trend(
            "Labels late",
            "Share of the rows of the last day whose label is due and has not come; dashed: somebody is told.",
            Query(f"max by (model) (model:labels_late:ratio_delta1d{{{MODEL}}})", "{{model}}"),
            unit="percentunit",
            bad=above(LIMITS["missing_labels"]),
            width=12,
        ),
        trend(
            "Labels that came early",
            "Labels whose prediction is not here; dashed: half of those that may wait, and all (`max_waiting`).",
            Query(latest("modelyard_drift_labels_waiting_rows"), "{{model}}"),
            unit="none",
            bad=filling(MAX_WAITING),
            width=12,
        ),
    ]


def _decisions() -> list[Any]:
    decisions = f"max by (model, decision) ({growth(f'modelyard_drift_decisions_total{{{MODEL}}}')})"
    return [
        trend(
            "Episodes that are open",
            "By severity: low is one key of the alarm, high both, critical the floor.",
            Query(f"sum by (severity) (max by (model, severity) ({_EPISODES}{{{MODEL}}}))", "{{severity}}"),
            unit="none",
            style="step",
            bad=above(1),
        ),
        trend(
            "Decisions",
            "What was decided about episodes, and why nothing was commanded when nothing was.",
            Query(f"sum by (decision) ({decisions}) > 0", "{{decision}}"),
            unit="none",
            bad=Unjudged("a decision is the platform at work."),
            style="bars",
        ),
        trend(
            "Episodes and commands, ever",
            "Each command is one retraining.",
            Query(f"sum({latest('modelyard_drift_episodes_total')})", "episodes"),
            Query(f'sum(max by (model) (modelyard_drift_decisions_total{{{MODEL}, decision="command"}}))', "commands"),
            unit="none",
            bad=Unjudged("they only grow; how many commands a week may see stands in the manifest."),
            style="step",
        ),
    ]


def _log() -> list[Any]:
    return [
        trend(
            "Predictions logged",
            "Events that inference delivered; duplicates are deliveries that were repeated.",
            Query(
                f"sum by (outcome) (rate(modelyard_drift_events_total{{{NAMESPACE}}}[$__rate_interval]))", "{{outcome}}"
            ),
            unit="cps",
            bad=CALLERS,
        ),
        trend(
            "Rows not looked at",
            "Rows that windows have not seen.",
            Query(latest("modelyard_drift_backlog_rows"), "{{model}}"),
            unit="none",
            bad=above(LIMITS["backlog_rows"]),
        ),
        trend(
            "Age of the champion's data",
            "Event time since the newest row that the champion learned from; where its data have no time, the time "
            "since it is champion.",
            Query(f"max by (model) (model:data_age:seconds{{{MODEL}}})", "{{model}}"),
            unit="s",
            bad=above(STALE_S),
        ),
    ]
