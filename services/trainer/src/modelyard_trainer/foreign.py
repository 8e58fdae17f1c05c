"""Models that are no estimators of ours: an MLflow model of any flavour, or a server of somebody else.

An MLflow model is code, and runs here to be asked for the sample: whoever brings one says by ``--pyfunc`` that they
trust it. Who serves it is asked again: the operator of the inference runtime.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.runtimes.forms import form_of
from modelyard_bundle.runtimes.pyfunc import PYFUNC_FILE, PyfuncRuntime, load_pyfunc, pyfunc_input
from modelyard_bundle.runtimes.remote import RemoteRuntime
from modelyard_bundle.signature import Columns
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import RemoteServer, Signature
from pydantic import ValidationError

__all__ = ["feature_names", "open_model", "packed_pyfunc", "read_remote", "remote_runtime"]

_TIMEOUT_S = 60.0
_OURS = frozenset({"modelyard.json", "probe.json", "baseline.json", "metrics.json", PYFUNC_FILE})


def feature_names(model: Any) -> list[str] | None:
    """Return the columns that an MLflow model takes, as its own signature says; None when it says nothing."""
    schema = model.metadata.get_input_schema()
    return [str(name) for name in schema.input_names()] if schema is not None and schema.has_input_names() else None


def packed_pyfunc(source: Path, folder: Path, model: Any, signature: Signature, sample: Columns) -> Runtime:
    """Copy an MLflow model into a bundle's folder, note what it answers, and return its runtime.

    Args:
        model: the loaded one.
        sample: many rows: a few could not tell a probability of 1 from the label 1.

    Raises:
        Invalid: it does not answer the sample, or with what the task does not know.
    """
    try:
        found = model.predict(pyfunc_input(model, signature, sample))
    except Invalid:
        raise
    except Exception as exc:  # flavours raise whatever they like, with values of the data in the message
        raise Invalid(f"the model does not answer the sample ({type(exc).__name__})") from exc
    form = form_of(signature, found)
    if taken := sorted(_OURS & {path.name for path in source.iterdir()}):
        raise Invalid(f"{source.name} holds {taken[0]}, which is a file of a bundle: bring the MLflow model alone")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / PYFUNC_FILE).write_text(json.dumps({"form": form}))
    return PyfuncRuntime(folder, signature)


def read_remote(path: Path) -> RemoteServer:
    """Return the server that a file names.

    Raises:
        Invalid: it is no such file; names the field.
    """
    try:
        return RemoteServer.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as exc:
        wrong = exc.errors()[0] if isinstance(exc, ValidationError) else None
        where = ".".join(map(str, wrong["loc"])) + ": " + wrong["msg"] if wrong else "cannot be read"
        raise Invalid(f"{path.name}: {where}") from exc


def remote_runtime(server: RemoteServer, signature: Signature, token_file: Path | None) -> RemoteRuntime:
    """Return what asks a server for the sample; whoever brings it chose the address."""
    return RemoteRuntime(server, signature, timeout_s=_TIMEOUT_S, token_file=token_file)


def open_model(path: Path) -> Any:
    """Return an MLflow model. This runs its code."""
    if not (path / "MLmodel").is_file():
        raise Invalid(f"{path.name} is no MLflow model folder: there is no MLmodel in it")
    return load_pyfunc(path)
