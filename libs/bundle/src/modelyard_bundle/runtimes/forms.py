"""What models of others answer, and what that means for a task.

They differ: labels, probabilities of one class or of all, one column or many. Which it is, is found out once, on the
many rows that a bundle is made with: a handful could not tell a probability of 1 from the label 1.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import Predicted

__all__ = ["Form", "as_predicted", "form_of"]

Form = Literal["labels", "probabilities", "positive", "values", "outliers"]
"""Classes; a probability of each class; of the last of two classes; numbers; -1 for an outlier and 1 for the rest."""


def form_of(signature: Signature, found: Any) -> Form:
    """Return what a model's answers to many rows are.

    Raises:
        Invalid: they are nothing that the task knows.
    """
    table = _table(found)
    if signature.task == "regression":
        if table.ndim == 1 and table.dtype.kind in "fiub":
            return "values"
        raise Invalid("the model answers with no single number a row, which regression takes")
    if signature.task == "anomaly":
        if table.ndim == 1 and set(np.unique(table).tolist()) <= {-1, 1}:
            return "outliers"
        raise Invalid("the model answers with other than -1 for an outlier and 1 for the rest, which anomaly takes")
    if table.ndim == 1 and {str(value) for value in table.tolist()} <= _spellings(signature):
        return "labels"
    chances = table.dtype.kind == "f" and bool(np.all((table >= 0) & (table <= 1)))
    if chances and table.ndim == 1 and len(signature.classes) == 2:
        return "positive"
    sums = table.ndim == 2 and table.shape[1] == len(signature.classes) and chances
    if sums and np.allclose(table.sum(axis=1), 1, atol=1e-3):
        return "probabilities"
    raise Invalid("the model answers neither with classes of the signature nor with their probabilities")


def as_predicted(signature: Signature, found: Any, form: Form) -> Predicted:
    """Return a model's answers as answers of the signature's task.

    Raises:
        Invalid: they are more than a table.
        ValueError: they are not of that form.
    """
    table = _table(found)
    if form == "values":
        return Predicted(table.astype(np.float64), None)
    if form == "outliers":
        if not np.all((table == -1) | (table == 1)):
            raise ValueError("the model answers with other than -1 for an outlier and 1 for the rest")
        return Predicted((table == -1).astype(np.int64), None)
    classes = np.empty(len(signature.classes), dtype=object)
    classes[:] = signature.classes
    if form == "labels":
        named = {spelling: value for value in signature.classes for spelling in _spelled(value)}
        labels = np.empty(len(table), dtype=object)
        labels[:] = [named.get(str(value), value) for value in table.tolist()]
        return Predicted(labels, None)
    if form == "positive":
        table = np.stack([1 - table, table], axis=1)
    chances = table.astype(np.float32)
    return Predicted(classes[np.argmax(chances, axis=1)], chances)


def _table(found: Any) -> npt.NDArray[Any]:
    """Return answers as an array, shape (n,) or (n, k): flavours give arrays, lists, series and frames."""
    table = np.asarray(found.to_numpy() if hasattr(found, "to_numpy") else found)
    if table.ndim not in (1, 2):
        raise Invalid("the model answers with more than a table")
    return table[:, 0] if table.ndim == 2 and table.shape[1] == 1 else table


def _spelled(value: str | int | bool) -> set[str]:
    """Return how a model may write a class: numbers also as floats, booleans also as numbers."""
    if isinstance(value, str):
        return {value}
    return {str(value), str(int(value)), str(float(value))}


def _spellings(signature: Signature) -> set[str]:
    return {spelling for value in signature.classes for spelling in _spelled(value)}
