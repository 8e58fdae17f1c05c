"""Making a bundle: an estimator becomes a folder that our servers verify and stock MLflow tools open."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import BundleManifest, Column, Lineage, RemoteServer, Signature, SliceMetrics
from modelyard_contracts.refs import Digest

from modelyard_bundle.manifest import list_files, write_manifest
from modelyard_bundle.probe import PROBE_ROWS, write_probe
from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.runtimes.sklearn import SKOPS_FILE, SklearnRuntime
from modelyard_bundle.signature import Columns, numeric_features, text_features
from modelyard_bundle.twin import make_twin

__all__ = ["BASELINE_FILE", "Packed", "environment", "pack", "pack_foreign"]

BASELINE_FILE = "baseline.json"
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "skl2onnx", "onnx", "onnxruntime")
_MLFLOW_TYPES = {"number": "float", "integer": "float", "boolean": "float", "category": "string"}
_PARITY_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle."""

    folder: Path
    digest: Digest
    manifest: BundleManifest


def environment() -> dict[str, str]:
    """Return Python and the libraries that fit and run models, with their versions."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def pack(
    folder: Path,
    *,
    model: str,
    estimator: Any,
    signature: Signature,
    sample: Columns,
    lineage: Lineage,
    baseline_json: str,
    metrics: Sequence[SliceMetrics],
    created: datetime,
) -> Packed:
    """Write a bundle into an empty folder.

    Args:
        sample: rows of real data, checked by the signature; the twin is compared on them and the probe set is
            taken from them.
        baseline_json: ``modelyard_stats.baseline.Baseline.to_json()``.

    Raises:
        Invalid: the estimator cannot be stored safely, or does not answer the sample.
    """
    import skops.io  # noqa: PLC0415  # heavy and optional

    folder.mkdir(parents=True, exist_ok=True)
    skops.io.dump(estimator, folder / SKOPS_FILE)
    runtime = SklearnRuntime(folder, signature)  # what cannot be loaded again is not handed over
    rows = min(_PARITY_ROWS, len(next(iter(sample.values()))))
    head = {name: values[:rows] for name, values in sample.items()}
    try:
        answers = runtime.predict(head)
    except Exception as exc:  # estimators raise whatever they like, with values of the data in the message
        raise Invalid(f"the estimator does not answer the sample ({type(exc).__name__})") from exc
    parity = make_twin(folder, estimator, signature, head, answers)
    _write_mlmodel(folder, signature, created)
    runtimes: tuple[_Name, ...] = ("onnx", "sklearn") if parity.held else ("sklearn",)
    described = _Described(model, signature, lineage, baseline_json, tuple(metrics), created)
    return _finished(folder, described, runtime, head, runtimes, parity=parity.sentence)


def pack_foreign(
    folder: Path,
    *,
    model: str,
    runtime: Runtime,
    signature: Signature,
    sample: Columns,
    lineage: Lineage,
    baseline_json: str,
    metrics: Sequence[SliceMetrics],
    created: datetime,
    remote: RemoteServer | None = None,
) -> Packed:
    """Finish the bundle of a model that is no estimator of ours.

    Args:
        folder: holds an MLflow model, for pyfunc; for a server of somebody else it may be empty.
        runtime: the model; its name is the bundle's only runtime.
        remote: the server, where that is one.

    Raises:
        Invalid: the model does not answer the sample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = _Described(model, signature, lineage, baseline_json, tuple(metrics), created)
    return _finished(folder, described, runtime, sample, (cast(_Name, runtime.name),), remote=remote)


_Name = Literal["onnx", "sklearn", "pyfunc", "remote"]


@dataclass(frozen=True, slots=True)
class _Described:
    """What the manifest says beside the files."""

    model: str
    signature: Signature
    lineage: Lineage
    baseline_json: str
    metrics: tuple[SliceMetrics, ...]
    created: datetime


def _finished(
    folder: Path,
    described: _Described,
    runtime: Runtime,
    sample: Columns,
    runtimes: tuple[_Name, ...],
    *,
    parity: str = "",
    remote: RemoteServer | None = None,
) -> Packed:
    """Write the probe set, the baseline, the metrics and the manifest beside a model."""
    rows = len(next(iter(sample.values())))
    places = np.unique(np.linspace(0, rows - 1, min(PROBE_ROWS, rows)).astype(int))
    probe = _askable(described.signature, {name: values[places] for name, values in sample.items()})
    try:
        predicted = runtime.predict(probe)
    except Exception as exc:  # models raise whatever they like, with values of the data in the message
        raise Invalid(f"the model does not answer the sample ({type(exc).__name__})") from exc
    write_probe(folder, _rows(described.signature, probe), predicted)
    (folder / BASELINE_FILE).write_text(described.baseline_json)
    metrics = [entry.model_dump() for entry in described.metrics]
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    manifest = BundleManifest(
        model=described.model,
        created=described.created,
        signature=described.signature,
        runtimes=runtimes,
        parity=parity,
        lineage=described.lineage,
        metrics=described.metrics,
        files=list_files(folder),
        remote=remote,
    )
    return Packed(folder, write_manifest(folder, manifest), manifest)


def _askable(signature: Signature, columns: Columns) -> Columns:
    """Return rows that a caller could send: data may lack some values that requests may not; these become zero."""
    found = dict(columns)
    for column in signature.features:
        if column.required and column.type != "category":
            found[column.name] = np.nan_to_num(columns[column.name])
    return found


def _rows(signature: Signature, columns: Columns) -> list[dict[str, Any]]:
    def value(column: Column, item: Any) -> Any:
        if not column.required and (item == "" or item != item):  # noqa: PLR0124  # NaN
            return None
        if column.type in {"boolean", "integer"}:
            return bool(item) if column.type == "boolean" else int(item)
        return item

    lists = {
        column.name: [value(column, item) for item in columns[column.name].tolist()] for column in signature.features
    }
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _write_mlmodel(folder: Path, signature: Signature, created: datetime) -> None:
    """Write MLflow's own description of the folder, so that ``mlflow.pyfunc.load_model`` opens it.

    See https://mlflow.org/docs/latest/ml/model/ (MLmodel file); JSON is YAML.
    """
    libraries = environment()
    required: Mapping[str, bool] = {column.name: column.required for column in signature.features}
    types = {column.name: _MLFLOW_TYPES[column.type] for column in signature.features}
    order = [*numeric_features(signature), *text_features(signature)]
    inputs = [{"type": types[name], "name": name, "required": required[name]} for name in order]
    document = {
        "flavors": {
            "python_function": {
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.sklearn",
                "model_path": SKOPS_FILE,
                "predict_fn": "predict",
                "python_version": libraries["python"],
            },
            "sklearn": {
                "code": None,
                "pickled_model": SKOPS_FILE,
                "serialization_format": "skops",
                "sklearn_version": libraries["scikit-learn"],
                "skops_trusted_types": _trusted(folder / SKOPS_FILE),
            },
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": None, "params": None},
        "utc_time_created": created.strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    (folder / "MLmodel").write_text(json.dumps(document, indent=1))
    pins = [f"{name}=={libraries[name]}" for name in _LIBRARIES if name in libraries and name != "python"]
    (folder / "requirements.txt").write_text("\n".join(["mlflow-skinny", *pins]) + "\n")
    (folder / "python_env.yaml").write_text(
        json.dumps({"python": libraries["python"], "dependencies": ["-r requirements.txt"]})
    )


def _trusted(path: Path) -> list[str]:
    import skops.io  # noqa: PLC0415

    return sorted(skops.io.get_untrusted_types(file=path))
