"""What the operator counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from modelyard_operator.domain.reconcile import Action, Apply, Delete, SetFinalizers, WriteStatus

__all__ = ["LEADER", "ROUND_SECONDS", "acted", "failed"]

LEADER = Gauge("modelyard_operator_leader", "1 while this replica leads")
ROUND_SECONDS = Histogram(
    "modelyard_operator_round_seconds",
    "Time to look at all objects once",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_ACTIONS = Counter("modelyard_operator_actions_total", "Actions carried out", ["action"])
_FAILURES = Counter("modelyard_operator_object_failures_total", "Objects that a round could not bring on")
_NAMES: dict[type, str] = {
    SetFinalizers: "set_finalizers",
    Apply: "apply",
    Delete: "delete",
    WriteStatus: "write_status",
}


def acted(action: Action) -> None:
    """Count an action."""
    _ACTIONS.labels(action=_NAMES[type(action)]).inc()


def failed(name: str) -> None:
    """Count an object; its name is in the log, which has no bound on names."""
    del name
    _FAILURES.inc()
