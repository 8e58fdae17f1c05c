"""From where on something is bad: one number for the alert that tells of it and for the line that a panel draws.

What an installation may see otherwise stands in ``LIMITS``; what follows from something else is read from there: from
the objectives, from the manifest's defaults, and from the defaults of the services' settings, whose panels name the
setting, since an installation may have set it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard_contracts.durations import duration_s
from modelyard_contracts.managed_model_v1alpha1 import DriftThresholds, Train
from modelyard_drift.settings import DriftSettings
from modelyard_inference.settings import InferenceSettings
from modelyard_operator.settings import OperatorSettings
from modelyard_registry.settings import RegistrySettings
from modelyard_training.settings import TrainingSettings
from pydantic import BaseModel

from tools.observability import slo

__all__ = [
    "ANY",
    "BATCH_ROWS",
    "BUDGET",
    "DAY_S",
    "ERRORS",
    "LIMITS",
    "MAX_CONCURRENT",
    "MAX_QUEUED",
    "MAX_WAITING",
    "MAX_WATCHERS",
    "MLFLOW_READ_S",
    "PSI",
    "RESYNC_S",
    "RUN_TIMEOUT_S",
    "SHADOW_ROWS",
    "SLOW",
    "STALE_S",
    "Thresholds",
    "above",
    "filling",
    "stages",
]

Thresholds = Sequence[tuple[float | None, str]]
"""Pairs of a value and a colour from it on; the first has no value: it is the colour below all others."""

DAY_S = 86_400

LIMITS: Mapping[str, float] = {
    "stale_days": 30,
    "overdue_s": 900,
    "queue_wait_s": 1800,
    "failed_in_a_day": 2,
    "refused_in_a_week": 3,
    "held_s": 6 * 3600,
    "approval_s": DAY_S,
    "missing_labels": 0.5,
    "backlog_rows": 10_000,
    "spool_share": 0.1,
    "routing_age_s": 120,
    "failing_share": 0.05,
    "task_failures": 3,
    "object_failures": 3,
    "slow_request_s": 1,
    "busy_share": 0.8,
}
"""Beyond these somebody is told, or a panel turns orange; the age of a model is in event time."""
STALE_S = LIMITS["stale_days"] * DAY_S


def above(limit: float, colour: str = "orange") -> Thresholds:
    """Return what is good below a limit."""
    return ((None, "green"), (limit, colour))


def stages(first: float, second: float) -> Thresholds:
    """Return what is good, then worth a look, then bad."""
    return ((None, "green"), (first, "orange"), (second, "red"))


def filling(capacity: float) -> Thresholds:
    """Return what is good until a capacity is half taken, and bad when all of it is."""
    return stages(capacity / 2, capacity)


def _default(settings: type[BaseModel], name: str) -> float:
    return float(settings.model_fields[name].default)


BATCH_ROWS = _default(InferenceSettings, "batch_rows")
"""Rows that may run together as one batch."""
MAX_CONCURRENT = _default(InferenceSettings, "max_concurrent")
"""Requests that one inference server answers at once."""
SHADOW_ROWS = _default(InferenceSettings, "shadow_rows")
"""Shadow copies that one inference server keeps waiting."""
MAX_QUEUED = _default(TrainingSettings, "max_queued")
"""Runs that may wait."""
MAX_WAITING = _default(DriftSettings, "max_waiting")
"""Labels of a model that may wait for their predictions."""
MLFLOW_READ_S = _default(RegistrySettings, "mlflow_read_s")
"""How long MLflow may be silent."""
MAX_WATCHERS = _default(RegistrySettings, "max_watchers")
"""Open watches of one registry."""
RESYNC_S = _default(OperatorSettings, "resync_s")
"""Between two rounds of the operator; a round that takes longer is late for the next."""
RUN_TIMEOUT_S = duration_s(str(Train.model_fields["timeout"].default))
"""How long a run may take where its manifest says nothing."""
_KEY = DriftThresholds().psi

_OBJECTIVES = {one.name: one for one in slo.load().objectives}
_SPARED = _OBJECTIVES["inference-availability"].budget
_PROMISED_S = _OBJECTIVES["inference-latency"].within_s
ANY: Thresholds = ((None, "green"), (1, "red"))
ERRORS: Thresholds = stages(_SPARED, 10 * _SPARED)
"""The share that the promise allows, and ten times as much."""
SLOW: Thresholds = stages(_PROMISED_S, 2.5 * _PROMISED_S)
"""The promise, in seconds, and the next bucket of the histogram."""
PSI: Thresholds = ((None, "green"), (_KEY / 2, "yellow"), (_KEY, "orange"), (2.5 * _KEY, "red"))
"""A shift is called moderate from half of the manifest's default key on, and significant from the key on."""
BUDGET: Thresholds = ((None, "red"), (0, "orange"), (0.25, "green"))
