"""Real bundles of small models, for the tests of bundles."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_bundle.packaging import Packed, pack
from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_bundle.signature import Columns
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, IsolationForest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MIXED = (
    Column(name="load", type="number"),
    Column(name="day", type="category"),
    Column(name="price", type="number", required=False),
    Column(name="holiday", type="boolean"),
)
"""A category between the numbers: who took columns by their place in the signature would be found out."""
NUMBERS = (Column(name="a", type="number"), Column(name="b", type="number"))


def signature(task: Any = "classification", features: tuple[Column, ...] = MIXED, **changes: Any) -> Signature:
    """Return a signature; a classifier's classes are 0 and 1."""
    classes = {"classes": (0, 1), "positive_class": 1} if task == "classification" else {}
    return Signature(task=task, features=features, target="up", **(classes | changes))


def columns(features: tuple[Column, ...] = MIXED, rows: int = 300, seed: int = 1) -> Columns:
    """Return rows of chance; a tenth of what may be missing is."""
    g = np.random.default_rng(seed)
    found: Columns = {}
    for column in features:
        if column.type == "category":
            found[column.name] = g.choice(["mon", "tue", "sun"], rows).astype(object)
            continue
        values = g.integers(0, 2, rows) if column.type == "boolean" else g.normal(size=rows)
        found[column.name] = values.astype(np.float32)
        if not column.required:
            found[column.name][g.random(rows) < 0.1] = np.nan
    return found


def bundle(folder: Path, estimator: Any, shape: Signature, sample: Columns, target: Any = None) -> Packed:
    """Fit the estimator on the sample and pack it."""
    fitted = estimator.fit(as_frame(shape, sample), target) if target is not None else estimator
    return pack(
        folder,
        model="power",
        estimator=fitted,
        signature=shape,
        sample=sample,
        lineage=Lineage(run="run-1", dataset="sha256:" + "d" * 64, estimator=type(estimator).__name__),
        baseline_json="{}",
        metrics=(),
        created=NOW,
    )


def mixed_pipeline(model: Any) -> Pipeline:
    """Return a pipeline for the mixed columns as a data frame orders them: numbers first, then categories."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [("numbers", "passthrough", [0, 1, 2]), ("texts", encoder, [3])]
    return Pipeline([("prepare", ColumnTransformer(parts)), ("model", model)])


def classifier_bundle(folder: Path, model: Any = None, **changes: Any) -> Packed:
    """Pack a classifier of the mixed columns; its target follows the load and the day."""
    sample = columns()
    target = (sample["load"] + 2 * (sample["day"] == "sun") > 0.5).astype(int)
    model = model or HistGradientBoostingClassifier(max_iter=10, early_stopping=False, random_state=0)
    return bundle(folder, mixed_pipeline(model), signature(**changes), sample, target)


def regressor_bundle(folder: Path, model: Any = None) -> Packed:
    """Pack a regressor of the mixed columns."""
    sample = columns()
    model = model or HistGradientBoostingRegressor(max_iter=10, early_stopping=False, random_state=0)
    return bundle(folder, mixed_pipeline(model), signature("regression"), sample, 1000 * sample["load"].astype(float))


def anomaly_bundle(folder: Path) -> Packed:
    """Pack a detector of anomalies in two numbers."""
    sample = columns(NUMBERS)
    forest = IsolationForest(n_estimators=10, random_state=0).fit(as_frame(signature("anomaly", NUMBERS), sample))
    return bundle(folder, forest, signature("anomaly", NUMBERS), sample)
