"""MLflow's pyfunc: a model of any flavour, as MLflow's own loader opens it.

Such a model is code: whoever loads it trusts whoever made it. So it is loaded only in a process apart, and only where
the operator says so. The form of its answers was found out when the bundle was made, and stands in ``pyfunc.json``.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column, Signature

from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.forms import Form, as_predicted
from modelyard_bundle.signature import Columns

__all__ = ["PYFUNC_FILE", "PyfuncRuntime", "load_pyfunc", "pyfunc_input"]

PYFUNC_FILE = "pyfunc.json"


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
