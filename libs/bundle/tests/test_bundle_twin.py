"""The graph of a twin: what standardises costs little, and means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_makers import bundle, signature
from modelyard_bundle.loading import load
from modelyard_bundle.runtimes.base import ONNX_FILE, scale
from modelyard_contracts.bundle_v1 import Column
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOUR = tuple(Column(name=name, type="number") for name in ("a", "b", "c", "d"))


def sample(rows: int, seed: int) -> dict[str, Any]:
    """Return columns of very different scales, far from zero."""
    random = np.random.default_rng(seed)
    return {
        column.name: random.normal(1000 * scale, scale, rows).astype(np.float32)
        for column, scale in zip(FOUR, (1e-3, 1.0, 30.0, 1e4), strict=True)
    }


def target(values: dict[str, Any], kind: str) -> Any:
    near = (values["a"] - 1.0) * 1e3 + (values["c"] - 3e4) / 30
    return near if kind == "regression" else np.digitize(near, [0.0] if kind == "two" else [-0.7, 0.7])


@pytest.mark.parametrize(
    ("estimator", "kind", "nodes"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), "two", ["Sub", "LinearClassifier"]),
        (make_pipeline(StandardScaler(), LogisticRegression()), "three", ["Sub", "LinearClassifier", "Normalizer"]),
        (make_pipeline(StandardScaler(), Ridge()), "regression", ["Sub", "LinearRegressor"]),
        (make_pipeline(StandardScaler(), LinearRegression()), "regression", ["Sub", "LinearRegressor"]),
        (make_pipeline(StandardScaler(with_std=False), LogisticRegression()), "two", ["Scaler", "LinearClassifier"]),
        (
            make_pipeline(StandardScaler(), RandomForestClassifier(5, max_depth=3, random_state=0)),
            "two",
            ["Sub", "Div", "TreeEnsembleClassifier"],
        ),
        (
            make_pipeline(
                ColumnTransformer([("scaled", StandardScaler(), [0, 1]), ("as it is", "passthrough", [2])]),
                LogisticRegression(),
            ),
            "two",
            ["ArrayFeatureExtractor", "ArrayFeatureExtractor", "Sub", "Div", "Concat", "LinearClassifier"],
        ),
    ],
    ids=["two classes", "three classes", "ridge", "least squares", "only centred", "trees", "some columns"],
)
def test_a_division_before_a_linear_model_is_in_its_coefficients(
    estimator: Any, kind: str, nodes: list[str], tmp_path: Path
) -> None:
    known, unseen = sample(300, 1), sample(300, 2)
    task = "regression" if kind == "regression" else "classification"
    classes = () if kind == "regression" else (0, 1) if kind == "two" else (0, 1, 2)
    shape = signature(task, FOUR, classes=classes, positive_class=None if task == "regression" else 1)

    packed = bundle(tmp_path / "b", estimator, shape, known, target(known, kind))

    assert packed.manifest.runtimes == ("onnx", "sklearn"), packed.manifest.parity
    graph = onnx.load(str(packed.folder / ONNX_FILE)).graph
    assert [node.op_type for node in graph.node] == nodes
    assert {constant.name for constant in graph.initializer} <= {name for node in graph.node for name in node.input}
    twin_says = load(packed.folder, packed.manifest).predict(unseen)
    says = load(packed.folder, packed.manifest, prefer="sklearn").predict(unseen)
    if task == "regression":
        np.testing.assert_allclose(twin_says.labels, says.labels, atol=1e-4)
    else:
        assert twin_says.probabilities is not None
        np.testing.assert_allclose(twin_says.probabilities, says.probabilities, atol=1e-4)
        assert (twin_says.labels == says.labels).mean() == 1.0


@pytest.mark.parametrize(
    "estimator",
    [RandomForestRegressor(20, random_state=0), GradientBoostingRegressor(n_estimators=20, random_state=0)],
    ids=["forest", "boosting"],
)
@pytest.mark.parametrize(("base", "has_twin"), [(300.0, True), (1e6, False)], ids=["near zero", "far from zero"])
def test_values_of_which_32_bits_lose_what_they_differ_by_have_no_twin(
    estimator: Any, base: float, has_twin: bool, tmp_path: Path
) -> None:
    known = sample(300, 1)

    packed = bundle(tmp_path / "b", estimator, signature("regression", FOUR), known, base + target(known, "regression"))

    assert ("onnx" in packed.manifest.runtimes) is has_twin, packed.manifest.parity
    assert "of what values differ by" in packed.manifest.parity


def test_a_model_of_one_value_has_a_twin_although_its_sums_are_rounded(tmp_path: Path) -> None:
    known = sample(300, 1)
    forest = RandomForestRegressor(7, max_depth=2, random_state=0)

    packed = bundle(tmp_path / "b", forest, signature("regression", FOUR), known, np.full(300, 5.1))

    assert "onnx" in packed.manifest.runtimes, packed.manifest.parity


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 3.0], 1.0), ([2.0, 2.0], 1.0), ([0.1 + 0.2, 0.3], 1.0), ([0.0, 2e-9], 1e-9), ([1e6, 1e6 + 2], 1.0)],
    ids=["apart", "the same", "the same but for rounding", "small", "large"],
)
def test_the_scale_of_values_is_what_they_differ_by(values: list[float], expected: float) -> None:
    assert scale(np.array(values)) == pytest.approx(expected)
