"""The models that all servers serve, in the form that each takes, and questions with scikit-learn's own answers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from modelyard_bundle.manifest import list_files, read_manifest, write_manifest
from modelyard_bundle.packaging import pack
from modelyard_bundle.runtimes.base import ONNX_FILE
from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.inference.names import MODEL

__all__ = ["Kit", "Question", "make_kit"]

_QUESTIONS = 8


@dataclass(frozen=True, slots=True)
class Question:
    """Rows and what scikit-learn answers.

    Attributes:
        rows: float32, shape (rows, features).
    """

    rows: NDArray[np.float32]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kit:
    """One model in every form.

    Attributes:
        bundle: with the ONNX twin.
        bare: the same bundle without the twin: what a model is that cannot be converted.
        questions: by number of rows.
    """

    name: str
    joblib: Path
    mlflow: Path
    bundle: Path
    bare: Path
    features: tuple[str, ...]
    questions: Mapping[int, tuple[Question, ...]]


def make_kit(name: str, folder: Path, rows: tuple[int, ...]) -> Kit:
    """Fit a model and write it in every form. Raise RuntimeError where its ONNX twin does not hold."""
    data = load_breast_cancer()
    features = tuple(feature.replace(" ", "_") for feature in data.feature_names)
    values = data.data.astype(np.float32)
    sample = {feature: values[:, place] for place, feature in enumerate(features)}
    signature = Signature(
        task="classification",
        features=tuple(Column(name=feature, type="number") for feature in features),
        target="benign",
        classes=(0, 1),
        positive_class=1,
    )
    frame = as_frame(signature, sample)
    # Those who are asked by position get the estimator without names: it would warn with every request else.
    unnamed = _estimator(name).fit(values, data.target)
    named = _estimator(name).fit(frame, data.target)
    folder.mkdir(parents=True)
    # It warns of the pickle that it is told to write.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    joblib.dump(unnamed, folder / "model.joblib")
    mlflow.sklearn.save_model(
        named,
        folder / "mlflow",
        signature=infer_signature(frame, named.predict(frame)),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    packed = pack(
        folder / "bundle",
        model=MODEL,
        estimator=named,
        signature=signature,
        sample=sample,
        lineage=Lineage(run="bench", dataset="sha256:" + "0" * 64, estimator=name),
        baseline_json="{}",
        metrics=(),
        created=datetime.now(UTC),
    )
    if packed.manifest.runtimes[0] != "onnx":
        raise RuntimeError(f"the {name} model has no ONNX twin: {packed.manifest.parity}")
    shutil.copytree(folder / "bundle", folder / "bare")
    _strip(folder / "bare")
    questions = {count: tuple(_questions(unnamed, values, count)) for count in rows}
    return Kit(
        name, folder / "model.joblib", folder / "mlflow", folder / "bundle", folder / "bare", features, questions
    )


def _estimator(name: str) -> Any:
    if name == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression())
    if name == "forest":
        return RandomForestClassifier(100, random_state=0, n_jobs=1)
    return HistGradientBoostingClassifier(max_iter=100, random_state=0)


def _strip(bundle: Path) -> None:
    (bundle / ONNX_FILE).unlink()
    manifest = read_manifest(bundle)
    bare = manifest.model_copy(update={"runtimes": ("sklearn",), "files": list_files(bundle)})
    write_manifest(bundle, bare)


def _questions(estimator: Any, values: NDArray[np.float32], count: int) -> list[Question]:
    chosen = np.random.default_rng(count).integers(0, len(values), (_QUESTIONS, count))
    return [
        Question(values[places], tuple(int(label) for label in estimator.predict(values[places]))) for places in chosen
    ]
