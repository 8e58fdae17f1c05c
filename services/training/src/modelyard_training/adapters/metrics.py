"""The metrics of the training service, one set a process; labels are bounded by the models and the states."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.runs import Run, State

__all__ = ["dataset_made", "run_ended", "show_counts"]

RUNS_ENDED = Counter("modelyard_training_runs_ended_total", "Runs that ended", ["model", "state"])
RUN_SECONDS = Histogram(
    "modelyard_training_run_duration_seconds",
    "From the start of a run to its end",
    ["model", "state"],
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600),
)
RUNS = Gauge("modelyard_training_runs_count", "Runs by state", ["state"])
QUEUE_DEPTH = Gauge("modelyard_training_queue_depth_runs", "Runs that wait to begin")
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


def show_counts(counts: Mapping[State, int]) -> None:
    """Show how many runs are in each state."""
    for state in State:
        RUNS.labels(state=str(state)).set(counts.get(state, 0))
    QUEUE_DEPTH.set(counts.get(State.PENDING, 0))
