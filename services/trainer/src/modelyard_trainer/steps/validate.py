"""Validate: is the data what the manifest says, before anything learns from it?

History that breaks its own manifest is refused, since somebody has to mend it. A labelled prediction that does is left
out: it came over the wire, nobody can mend it, and one of them must not stop all training to come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.rows import NO_TIME, Rows, category_text

__all__ = ["feedback_rows", "history_rows"]

_log = get_logger(__name__)
_LEAST_ROWS = 20


def history_rows(spec: ManagedModelSpec, signature: Signature, frame: pd.DataFrame) -> Rows:
    """Return the source's rows, oldest first; rows without a target are left out. Raise RunFailed on broken data."""
    labelled = frame[frame[spec.data.target].notna()]
    if len(labelled) < _LEAST_ROWS:
        raise RunFailed(f"spec.data.target: {len(labelled)} rows have a {spec.data.target!r}; at least {_LEAST_ROWS}")
    columns: dict[str, npt.NDArray[Any]] = {}
    for column in signature.features:
        values = labelled[column.name]
        where = f"spec.data.features.{column.name}"
        missing = float(values.isna().mean())
        if column.required and missing > spec.data.checks.max_missing:
            raise RunFailed(
                f"{where}: {missing:.1%} of its values are missing (at most {spec.data.checks.max_missing:.1%}); "
                "mend the data, or raise data.checks.maxMissing, or set required: false"
            )
        columns[column.name] = _texts(values) if column.type == "category" else _numbers(values)
        if beyond := int(_beyond(column, columns[column.name], _declared(spec, column)).sum()):
            raise RunFailed(f"{where}: {beyond} values are outside of what the manifest declares, or not finite")
    times = _times(labelled, spec.data.timestamp)
    truth = _truth(spec, signature, labelled[spec.data.target])
    rows = Rows(columns, truth, times, np.zeros(len(labelled), dtype=bool))
    return rows.take(np.argsort(rows.times_us, kind="stable"))


def feedback_rows(spec: ManagedModelSpec, signature: Signature, frame: pd.DataFrame) -> Rows:
    """Return labelled predictions as rows, in the order of event time; those that break the manifest are left out."""
    known = frame[frame["__label"].notna()]
    columns: dict[str, npt.NDArray[Any]] = {}
    sound = np.ones(len(known), dtype=bool)
    for column in signature.features:
        values = known[column.name] if column.name in known.columns else pd.Series([None] * len(known), dtype=object)
        columns[column.name] = _texts(values) if column.type == "category" else _numbers(values)
        sound &= ~_beyond(column, columns[column.name], _declared(spec, column))
        if column.required:
            sound &= ~values.isna().to_numpy()
        if column.type != "category":
            sound &= values.isna().to_numpy() | ~np.isnan(columns[column.name])
    if not sound.all():
        _log.warning("feedback.left_out", rows=int((~sound).sum()), of=len(known))
    times = _times(known, "__event_time")
    truth = _truth(spec, signature, known["__label"])
    rows = Rows(columns, truth, times, np.ones(len(known), dtype=bool)).take(sound)
    return rows.take(np.argsort(rows.times_us, kind="stable"))


def _declared(spec: ManagedModelSpec, column: Column) -> frozenset[str] | None:
    feature = spec.data.features.get(column.name)
    if feature is None or feature.categories is None:
        return None
    return frozenset(str(category) for category in feature.categories)


def _beyond(column: Column, values: npt.NDArray[Any], declared: frozenset[str] | None) -> npt.NDArray[np.bool_]:
    """Return which values the manifest does not allow, shape (rows,); a missing one is another question."""
    if column.type == "category":
        allowed = None if declared is None else declared | {""}
        return np.asarray([allowed is not None and value not in allowed for value in values], dtype=bool)
    beyond: npt.NDArray[np.bool_] = np.isinf(values)
    if column.min is not None:
        beyond |= values < np.float32(column.min)
    if column.max is not None:
        beyond |= values > np.float32(column.max)
    return beyond


def _times(frame: pd.DataFrame, column: str | None) -> npt.NDArray[np.int64]:
    if column is None:
        return np.full(len(frame), NO_TIME, dtype=np.int64)
    if pd.api.types.is_numeric_dtype(frame[column]):
        raise RunFailed(f"spec.data.timestamp: {column!r} holds numbers, and nobody can tell their unit; write times")
    try:
        times = pd.to_datetime(frame[column], utc=True)
    except (ValueError, TypeError) as exc:
        raise RunFailed(f"spec.data.timestamp: {column!r} holds values that are not times") from exc
    if bool(times.isna().any()):
        raise RunFailed(f"spec.data.timestamp: {int(times.isna().sum())} rows have no {column!r}")
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


def _texts(values: pd.Series[Any]) -> npt.NDArray[Any]:
    """Return categories as text, the empty one for a missing value, shape (rows,), object."""
    texts = np.empty(len(values), dtype=object)
    texts[:] = ["" if missing else category_text(value) for value, missing in zip(values, values.isna(), strict=True)]
    return texts


def _numbers(values: pd.Series[Any]) -> npt.NDArray[np.float32]:
    """Return numbers as models take them, NaN for a missing value or for text; too large ones become infinite."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _truth(spec: ManagedModelSpec, signature: Signature, truth: pd.Series[Any]) -> npt.NDArray[Any]:
    if signature.classes and isinstance(signature.classes[0], str):
        return np.asarray([str(value) for value in truth], dtype=object)
    try:
        numbers = truth.to_numpy().astype(np.float64)
    except (ValueError, TypeError) as exc:
        raise RunFailed(f"spec.data.target: {spec.data.target!r} holds text where numbers are learned from") from exc
    if not np.isfinite(numbers).all():
        raise RunFailed(f"spec.data.target: {spec.data.target!r} holds values that are not finite")
    return numbers if signature.task == "regression" else numbers.astype(np.int64)
