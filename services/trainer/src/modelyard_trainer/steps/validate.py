"""Validate: is the data what the manifest says, before anything learns from it? Infers what the manifest leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from modelyard_bundle.signature import Columns
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.managed_model_v1alpha1 import Feature, ManagedModelSpec

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.rows import NO_TIME, Rows

__all__ = ["feedback_rows", "history_rows", "infer_signature"]

_LEAST_ROWS = 20
_MOST_CATEGORIES = 1000
_MOST_CLASSES = 100


def infer_signature(spec: ManagedModelSpec, frame: pd.DataFrame) -> Signature:
    """Return what a model of this data takes and gives.

    Raises:
        RunFailed: naming the column and the fix.
    """
    data = spec.data
    for role, name in (("target", data.target), ("timestamp", data.timestamp), *(("keys", key) for key in data.keys)):
        if name is not None and name not in frame.columns:
            raise RunFailed(f"spec.data.{role}: the data has no column {name!r}; its columns are {_names(frame)}")
    for name in data.features:
        if name not in frame.columns:
            raise RunFailed(f"spec.data.features.{name}: the data has no such column; its columns are {_names(frame)}")
    if len(frame) < _LEAST_ROWS:
        raise RunFailed(f"spec.data.source: {len(frame)} rows are too few to learn from; at least {_LEAST_ROWS}")
    roles = {data.target, data.timestamp, *data.keys}
    features = tuple(
        _column(name, frame[name], data.features.get(name, Feature())) for name in frame.columns if name not in roles
    )
    if not features:
        raise RunFailed("spec.data: the target, the timestamp and the keys are all that there is; no features are left")
    features = tuple(sorted(features, key=lambda column: column.type == "category"))
    classes: tuple[str | int, ...] = ()
    if spec.task == "classification":
        classes = _classes(frame[data.target], data.target)
        if data.positive_class is not None and data.positive_class not in classes:
            raise RunFailed(f"spec.data.positiveClass: {data.positive_class!r} is not a class; they are {classes}")
    return Signature(
        task=spec.task,
        features=features,
        target=data.target,
        classes=classes,
        positive_class=_positive(spec, classes),
    )


def _positive(spec: ManagedModelSpec, classes: tuple[str | int, ...]) -> str | int | None:
    if spec.data.positive_class is not None:
        return spec.data.positive_class
    return classes[-1] if len(classes) == 2 else None


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in frame.columns)


def _column(name: str, values: pd.Series[Any], declared: Feature) -> Column:
    kind = declared.type or _kind(name, values)
    known = values.dropna()
    if kind == "category":
        categories = declared.categories
        if categories is None:
            seen = sorted({str(value) for value in known})
            if len(seen) > _MOST_CATEGORIES:
                raise RunFailed(
                    f"spec.data.features.{name}: {len(seen)} categories are too many (at most {_MOST_CATEGORIES}); "
                    "make it a key, or declare its categories"
                )
            categories = tuple(seen)
        return Column(name=name, type="category", required=declared.required, categories=categories)
    if not pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
        raise RunFailed(f"spec.data.features.{name}: declared as {kind}, and the data holds text")
    return Column(name=name, type=kind, required=declared.required, min=declared.min, max=declared.max)


def _kind(name: str, values: pd.Series[Any]) -> Any:
    if pd.api.types.is_bool_dtype(values):
        return "boolean"
    if pd.api.types.is_integer_dtype(values):
        return "integer"
    if pd.api.types.is_float_dtype(values):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(values):
        raise RunFailed(f"spec.data: {name!r} holds times; make it the timestamp or a key")
    return "category"


def _classes(target: pd.Series[Any], name: str) -> tuple[str | int, ...]:
    known = target.dropna()
    if pd.api.types.is_float_dtype(known) and not bool((known == known.round()).all()):
        raise RunFailed(f"spec.data.target: {name!r} holds fractions; is the task regression?")
    numbers = pd.api.types.is_numeric_dtype(known) or pd.api.types.is_bool_dtype(known)
    found: list[Any] = sorted({int(value) if numbers else str(value) for value in known.unique()})
    if len(found) < 2:
        raise RunFailed(f"spec.data.target: {name!r} has {len(found)} class; there is nothing to tell apart")
    if len(found) > _MOST_CLASSES:
        raise RunFailed(f"spec.data.target: {name!r} has {len(found)} classes (at most {_MOST_CLASSES})")
    return tuple(found)


def history_rows(spec: ManagedModelSpec, signature: Signature, frame: pd.DataFrame) -> Rows:
    """Return the source's rows, oldest first; rows without a target are left out. Raise RunFailed on broken data."""
    labelled = frame[frame[spec.data.target].notna()]
    times = _times(labelled, spec.data.timestamp)
    rows = _rows(spec, signature, labelled, labelled[spec.data.target], times, fed_back=False)
    return rows.take(np.argsort(rows.times_us, kind="stable"))


def feedback_rows(spec: ManagedModelSpec, signature: Signature, frame: pd.DataFrame) -> Rows:
    """Return labelled predictions as rows, in the order of event time."""
    times = _times(frame, "__event_time")
    rows = _rows(spec, signature, frame, frame["__label"], times, fed_back=True)
    return rows.take(np.argsort(rows.times_us, kind="stable"))


def _times(frame: pd.DataFrame, column: str | None) -> npt.NDArray[np.int64]:
    if column is None:
        return np.full(len(frame), NO_TIME, dtype=np.int64)
    try:
        times = pd.to_datetime(frame[column], utc=True)
    except (ValueError, TypeError) as exc:
        raise RunFailed(f"spec.data.timestamp: {column!r} holds values that are not times") from exc
    if bool(times.isna().any()):
        raise RunFailed(f"spec.data.timestamp: {int(times.isna().sum())} rows have no {column!r}")
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


def _rows(
    spec: ManagedModelSpec,
    signature: Signature,
    frame: pd.DataFrame,
    truth: pd.Series[Any],
    times: npt.NDArray[np.int64],
    *,
    fed_back: bool,
) -> Rows:
    columns: Columns = {}
    for column in signature.features:
        if column.name not in frame.columns:
            raise RunFailed(f"spec.data.features.{column.name}: the rows have no such column")
        columns[column.name] = _values(spec, column, frame[column.name])
    return Rows(columns, _truth(signature, truth), times, np.full(len(frame), fed_back))


def _values(spec: ManagedModelSpec, column: Column, values: pd.Series[Any]) -> npt.NDArray[Any]:
    missing = float(values.isna().mean()) if len(values) else 0.0
    bound = spec.data.checks.max_missing
    where = f"spec.data.features.{column.name}"
    if column.required and missing > bound:
        raise RunFailed(
            f"{where}: {missing:.1%} of its values are missing (at most {bound:.1%}); "
            "mend the data, or raise data.checks.maxMissing, or set required: false"
        )
    if column.type == "category":
        texts = np.empty(len(values), dtype=object)
        texts[:] = ["" if value is None or value != value else str(value) for value in values]  # noqa: PLR0124  # NaN
        declared = spec.data.features.get(column.name)
        if declared is not None and declared.categories is not None:
            allowed = {str(value) for value in declared.categories} | {""}
            if foreign := set(texts.tolist()) - allowed:
                raise RunFailed(f"{where}: {len(foreign)} categories in the data are not among the declared ones")
        return texts
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as exc:
        raise RunFailed(f"{where}: declared as {column.type}, and the data holds text") from exc
    for bound_, beyond in ((column.min, numbers < (column.min or 0)), (column.max, numbers > (column.max or 0))):
        if bound_ is not None and bool(beyond.any()):
            raise RunFailed(f"{where}: {int(beyond.sum())} values are beyond the declared bound {bound_}")
    return numbers.astype(np.float32)


def _truth(signature: Signature, truth: pd.Series[Any]) -> npt.NDArray[Any]:
    if signature.task == "regression":
        return truth.to_numpy(dtype=np.float64)
    if signature.classes and isinstance(signature.classes[0], str):
        return np.asarray([str(value) for value in truth], dtype=object)
    return truth.to_numpy().astype(np.float64).astype(np.int64)
