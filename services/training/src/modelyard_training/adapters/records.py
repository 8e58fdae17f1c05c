"""Rows to domain values and back. Law: a value survives the way through its row."""

from __future__ import annotations

from typing import Any

from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_training.adapters.database import DatasetRow, ModelRow, RunRow, ScheduleRow
from modelyard_training.domain.datasets import Dataset, DatasetColumn
from modelyard_training.domain.ports import KnownModel
from modelyard_training.domain.runs import Run, State, Trigger
from modelyard_training.domain.schedules import Schedule

__all__ = [
    "dataset_from",
    "dataset_values",
    "model_from",
    "model_values",
    "run_from",
    "run_values",
    "schedule_from",
    "schedule_values",
]

_SAME_IN_A_RUN = (
    "id",
    "model",
    "training_digest",
    "until_label_seq",
    "timeout_s",
    "stage",
    "progress",
    "reason",
    "created",
    "started",
    "ended",
    "attempts",
    "stopping_since",
    "settled",
    "report_seq",
    "report_digest",
    "version",
    "mlflow_run_id",
    "traceparent",
)
_SAME_IN_A_SCHEDULE = ("model", "cron", "next_due", "last_due", "last_run", "note", "retry_at")


def run_from(row: RunRow) -> Run:
    """Return the run that a row keeps."""
    return Run(
        **{name: getattr(row, name) for name in _SAME_IN_A_RUN},
        trigger=Trigger(**row.trigger),
        spec=row.spec,
        state=State(row.state),
        stopping=State(row.stopping) if row.stopping else None,
        metrics=row.metrics,
        evaluation=row.evaluation,
    )


def run_values(run: Run) -> dict[str, Any]:
    """Return the columns of a run."""
    values = {name: getattr(run, name) for name in _SAME_IN_A_RUN}
    # PostgreSQL keeps no NUL in a text, and a process may well write one into its log.
    values |= {name: values[name].replace("\0", "") for name in ("stage", "reason")}
    return values | {
        "trigger": {"kind": run.trigger.kind, "reason": run.trigger.reason, "episode": run.trigger.episode},
        "spec": dict(run.spec),
        "state": str(run.state),
        "stopping": str(run.stopping) if run.stopping else None,
        "metrics": dict(run.metrics),
        "evaluation": dict(run.evaluation) if run.evaluation is not None else None,
    }


def dataset_from(row: DatasetRow) -> Dataset:
    """Return the dataset version that a row keeps."""
    columns = tuple(
        DatasetColumn(
            name=column["name"],
            kind=column["kind"],
            required=column["required"],
            min=column["min"],
            max=column["max"],
            categories=tuple(column["categories"]) if column["categories"] is not None else None,
        )
        for column in row.columns
    )
    return Dataset(row.digest, row.rows, row.size_bytes, columns, row.created, row.name)


def dataset_values(dataset: Dataset) -> dict[str, Any]:
    """Return the columns of a dataset version."""
    columns = [
        {
            "name": column.name,
            "kind": column.kind,
            "required": column.required,
            "min": column.min,
            "max": column.max,
            "categories": list(column.categories) if column.categories is not None else None,
        }
        for column in dataset.columns
    ]
    return {
        "digest": dataset.digest,
        "rows": dataset.rows,
        "size_bytes": dataset.size_bytes,
        "columns": columns,
        "created": dataset.created,
        "name": dataset.name,
    }


def model_from(row: ModelRow) -> KnownModel:
    """Return the model that a row keeps."""
    return KnownModel(
        name=row.name,
        training_digest=row.training_digest,
        spec=ManagedModelSpec.model_validate(row.spec),
        written=row.spec,
        champion=row.champion,
        deleted=row.deleted,
    )


def model_values(model: KnownModel) -> dict[str, Any]:
    """Return the columns of a model."""
    return {
        "name": model.name,
        "training_digest": model.training_digest,
        "spec": dict(model.written),
        "champion": model.champion,
        "deleted": model.deleted,
    }


def schedule_from(row: ScheduleRow) -> Schedule:
    """Return the cron trigger that a row keeps."""
    return Schedule(**{name: getattr(row, name) for name in _SAME_IN_A_SCHEDULE})


def schedule_values(schedule: Schedule) -> dict[str, Any]:
    """Return the columns of a cron trigger."""
    return {name: getattr(schedule, name) for name in _SAME_IN_A_SCHEDULE}
