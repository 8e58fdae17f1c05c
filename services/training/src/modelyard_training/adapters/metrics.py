"""The metrics of the training service, one set a process; labels are bounded by the models and the states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from modelyard_common.metrics import Snapshot
from prometheus_client import Counter, Gauge, Histogram

from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.runs import FINAL, Run, State
from modelyard_training.domain.schedules import Schedule

__all__ = ["dataset_made", "run_ended", "show_counts", "show_models"]

RUNS_ENDED = Counter("modelyard_training_runs_ended_total", "Runs that ended", ["model", "state"])
RUN_SECONDS = Histogram(
    "modelyard_training_run_duration_seconds",
    "From the start of a run to its end",
    ["model", "state"],
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600),
)
RUNS = Gauge("modelyard_training_runs_count", "Runs by state", ["state"])
QUEUE_DEPTH = Gauge("modelyard_training_queue_depth_runs", "Runs that wait to begin")
QUEUE_WAIT = Gauge(
    "modelyard_training_queue_wait_seconds", "How long the oldest waiting run has waited to begin; 0: none waits"
)
SCHEDULE_DUE = Snapshot(
    "modelyard_training_schedule_due_seconds",
    "When the next of a model's cron triggers is due, Unix; past while it cannot be acted on",
    ["model"],
)
LAST_SUCCESS = Snapshot(
    "modelyard_training_last_success_seconds", "When a run of the model last succeeded, Unix; none: never", ["model"]
)
DATASET_ROWS = Counter("modelyard_training_dataset_rows_total", "Rows of new dataset versions")
DATASET_BYTES = Counter("modelyard_training_dataset_bytes_total", "Bytes of new dataset versions, in canonical form")


def run_ended(run: Run) -> None:
    """Count a run that is over."""
    RUNS_ENDED.labels(model=run.model, state=str(run.state)).inc()
    if run.started is not None and run.ended is not None:
        took_s = (run.ended - run.started).total_seconds()
        RUN_SECONDS.labels(model=run.model, state=str(run.state)).observe(took_s)


def dataset_made(dataset: Dataset) -> None:
    """Count a new dataset version."""
    DATASET_ROWS.inc(dataset.rows)
    DATASET_BYTES.inc(dataset.size_bytes)


def show_counts(counts: Mapping[State, int], *, oldest: Run | None, now: datetime) -> None:
    """Show how many runs are in each state, and how long the oldest of those that wait has waited."""
    for state in State:
        RUNS.labels(state=str(state)).set(counts.get(state, 0))
    QUEUE_DEPTH.set(counts.get(State.PENDING, 0))
    QUEUE_WAIT.set(max(0.0, (now - oldest.created).total_seconds()) if oldest is not None else 0)


def show_models(models: Iterable[str], successes: Mapping[str, datetime], schedules: Iterable[Schedule]) -> None:
    """Show what is known of each model, and its endings from 0 on: a series that begins at 1 has not risen."""
    names = set(models)
    due: dict[tuple[str, ...], float] = {}
    for schedule in schedules:
        key = (schedule.model,)
        due[key] = min(due.get(key, float("inf")), schedule.next_due.timestamp())
    SCHEDULE_DUE.show({key: at for key, at in due.items() if key[0] in names})
    LAST_SUCCESS.show({(model,): at.timestamp() for model, at in successes.items() if model in names})
    for model in names:
        for state in FINAL:
            RUNS_ENDED.labels(model=model, state=str(state))
