"""Infer: what a model of this data takes and gives, where the manifest leaves it to the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.managed_model_v1alpha1 import Feature, ManagedModelSpec

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.rows import Rows, category_text

__all__ = ["infer_signature", "learned_signature"]

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
    for name in spec.serve.redact:
        if name not in frame.columns:
            raise RunFailed(f"spec.serve.redact: the data has no column {name!r}; its columns are {_names(frame)}")
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
    known = values.dropna().infer_objects()
    kind = declared.type or _kind(name, known)
    if kind == "category":
        categories = declared.categories
        if categories is None:
            categories = _seen(name, known)
        return Column(name=name, type="category", required=declared.required, categories=categories)
    if not pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
        raise RunFailed(f"spec.data.features.{name}: declared as {kind}, and the data holds text")
    if kind == "integer" and not bool((known == known.round()).all()):
        raise RunFailed(f"spec.data.features.{name}: declared as integer, and the data holds fractions")
    if kind == "boolean" and not bool(known.isin([0, 1]).all()):
        raise RunFailed(
            f"spec.data.features.{name}: declared as boolean, and the data holds other numbers than 0 and 1"
        )
    return Column(name=name, type=kind, required=declared.required, min=declared.min, max=declared.max)


def _seen(name: str, values: Iterable[Any]) -> tuple[str, ...]:
    seen = sorted({category_text(value) for value in values})
    if len(seen) > _MOST_CATEGORIES:
        raise RunFailed(
            f"spec.data.features.{name}: {len(seen)} categories are too many (at most {_MOST_CATEGORIES}); "
            "make it a key, or declare its categories"
        )
    return tuple(seen)


def learned_signature(spec: ManagedModelSpec, signature: Signature, learn: Rows) -> Signature:
    """Return the signature with what was really learned: these classes, in the order of probabilities, and categories.

    Feedback may hold classes and categories that the history lacks, and the newest rows may lack some of the history.
    """
    features = []
    for column in signature.features:
        declared = spec.data.features.get(column.name)
        if column.type == "category" and (declared is None or declared.categories is None):
            seen = _seen(column.name, (value for value in learn.columns[column.name] if value != ""))
            features.append(column.model_copy(update={"categories": seen}))
        else:
            features.append(column)
    classes: tuple[Any, ...] = ()
    if spec.task == "classification":
        classes = tuple(np.unique(learn.truth).tolist())
        if len(classes) < 2:
            raise RunFailed("the rows to learn from hold one class only; widen train.learnFrom.recent")
        if spec.data.positive_class is not None and spec.data.positive_class not in classes:
            raise RunFailed(f"no row to learn from is of the class {spec.data.positive_class!r} (data.positiveClass)")
    update = {"features": tuple(features), "classes": classes, "positive_class": _positive(spec, classes)}
    return signature.model_copy(update=update)


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
