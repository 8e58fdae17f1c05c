"""MLflow's pyfunc: a model of any flavour, as MLflow's own loader opens it.

Such a model is code: whoever loads it trusts whoever made it. So it is loaded only in a process apart, and only where
the operator says so. What flavours answer differs (labels, probabilities of one class or of all, one column or many);
which it is was found out when the bundle was made, on many rows, and stands in ``pyfunc.json``: a handful of rows could
not tell a probability of 1 from the label 1.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column, Signature

from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns

__all__ = ["PYFUNC_FILE", "Form", "PyfuncRuntime", "as_predicted", "form_of", "load_pyfunc", "pyfunc_input"]

PYFUNC_FILE = "pyfunc.json"
Form = Literal["labels", "probabilities", "positive", "values", "outliers"]
"""Classes; a probability of each class; of the last of two classes; numbers; -1 for an outlier and 1 for the rest."""


class PyfuncRuntime:
    """Runs what MLflow opens; one call at a time, since not every flavour is thread safe."""

    name = "pyfunc"
    blocking = True

    def __init__(self, folder: Path, signature: Signature) -> None:
        try:
            form = json.loads((folder / PYFUNC_FILE).read_bytes())["form"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise Invalid(f"{PYFUNC_FILE}: cannot be read ({type(exc).__name__})") from exc
        if form not in get_args(Form):
            raise Invalid(f"{PYFUNC_FILE}: the form must be one of {', '.join(get_args(Form))}")
        self._form: Form = form
        self._model = load_pyfunc(folder)
        self._signature = signature
        self._turn = threading.Lock()

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked."""
        table = pyfunc_input(self._model, self._signature, columns)
        with self._turn:
            found = self._model.predict(table)
        return as_predicted(self._signature, found, self._form)


def load_pyfunc(folder: Path) -> Any:
    """Return the model of an MLflow model folder. This runs its code.

    Raises:
        Invalid: MLflow does not open it; says what kind of error it met.
    """
    import mlflow.pyfunc  # noqa: PLC0415  # heavy and optional

    try:
        return mlflow.pyfunc.load_model(str(folder))
    except ModuleNotFoundError as exc:
        raise Invalid(f"the model needs {exc.name}, which is not installed beside the pyfunc runtime") from exc
    except Exception as exc:  # mlflow and each flavour raise their own
        raise Invalid(f"MLflow does not open the model ({type(exc).__name__})") from exc


def pyfunc_input(model: Any, signature: Signature, columns: Columns) -> Any:
    """Return columns as the model takes them: a frame with the types of its own signature, or one array."""
    import pandas as pd  # noqa: PLC0415  # optional, as above

    schema = model.metadata.get_input_schema()
    if schema is not None and schema.is_tensor_spec():
        return np.stack([columns[column.name] for column in signature.features], axis=1).astype(
            schema.input_types()[0], copy=False
        )
    kinds = {} if schema is None or not schema.has_input_names() else _kinds(schema)
    order = list(kinds) or [column.name for column in signature.features]
    by_name = {column.name: column for column in signature.features}
    if unknown := [name for name in order if name not in by_name]:
        raise Invalid(f"the model takes {unknown[0]!r}, which is no feature of the signature")
    return pd.DataFrame({name: _typed(by_name[name], columns[name], kinds.get(name)) for name in order})


def _kinds(schema: Any) -> dict[str, str]:
    return {name: kind.name for name, kind in schema.input_dict().items() for kind in [kind.type]}


def _typed(column: Column, values: npt.NDArray[Any], kind: str | None) -> npt.NDArray[Any]:
    if column.type == "category":
        return values
    if kind is None:
        kind = {"boolean": "boolean", "integer": "long"}.get(column.type, "double")
    dtypes: dict[str, npt.DTypeLike] = {"boolean": np.bool_, "integer": np.int32, "long": np.int64, "float": np.float32}
    dtype = dtypes.get(kind, np.float64)
    whole = np.issubdtype(dtype, np.floating) or not bool(np.isnan(values).any())
    return values.astype(dtype if whole else np.float64)


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
    """Return a model's answers as answers of the signature's task."""
    table = _table(found)
    if form == "values":
        return Predicted(table.astype(np.float64), None)
    if form == "outliers":
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
