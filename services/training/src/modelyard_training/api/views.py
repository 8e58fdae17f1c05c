"""Domain values as the contract shows them."""

from __future__ import annotations

from modelyard_contracts.bundle_v1 import Column
from modelyard_contracts.training_v1 import DatasetView, RunTrigger, RunView, ScheduleView

from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.runs import Run
from modelyard_training.domain.schedules import Schedule

__all__ = ["dataset_view", "run_view", "schedule_view"]


def run_view(run: Run) -> RunView:
    """Return a run as it is shown."""
    return RunView(
        id=run.id,
        model=run.model,
        state=run.state.value,
        trigger=RunTrigger(kind=run.trigger.kind, reason=run.trigger.reason, episode=run.trigger.episode),
        stage=run.stage,
        progress=run.progress,
        reason=run.reason,
        training_digest=run.training_digest,
        until_label_seq=run.until_label_seq,
        created=run.created,
        started=run.started,
        ended=run.ended,
        version=run.version,
        mlflow_run_id=run.mlflow_run_id,
        metrics=dict(run.metrics),
        attempts=run.attempts,
    )


def dataset_view(dataset: Dataset) -> DatasetView:
    """Return a dataset version as it is shown."""
    columns = tuple(
        Column(
            name=column.name,
            type=column.kind,
            required=column.required,
            min=column.min,
            max=column.max,
            categories=column.categories,
        )
        for column in dataset.columns
    )
    return DatasetView(
        digest=dataset.digest,
        rows=dataset.rows,
        size_bytes=dataset.size_bytes,
        columns=columns,
        created=dataset.created,
        name=dataset.name,
    )


def schedule_view(schedule: Schedule) -> ScheduleView:
    """Return a cron trigger as it is shown."""
    return ScheduleView(
        model=schedule.model,
        cron=schedule.cron,
        next_due=schedule.next_due,
        last_due=schedule.last_due,
        last_run=schedule.last_run,
        note=schedule.note,
    )
