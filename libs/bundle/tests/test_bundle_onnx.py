"""One row by itself runs in memory of its own: it says what it says among others, to each thread its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from bundle_makers import MIXED, NUMBERS, bundle, columns, mixed_pipeline, signature
from modelyard_bundle.loading import load
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.onnx import ONNX_FILE, OnnxRuntime
from modelyard_bundle.runtimes.onnx_rows import LINEAR, Linear, LinearRow, linear_row
from modelyard_bundle.signature import Table
from onnxruntime import InferenceSession
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROWS = 40
SCALED = make_pipeline(StandardScaler(), LogisticRegression())
FOREST = RandomForestClassifier(5, random_state=0)
MIXTURE = mixed_pipeline(RandomForestClassifier(5, random_state=0))


def table(features: Any, rows: int, seed: int = 3) -> tuple[dict[str, int], npt.NDArray[np.float32], dict[str, Any]]:
    found = columns(features, rows, seed)
    texts = {column.name: found[column.name] for column in features if column.type == "category"}
    names = [column.name for column in features if column.name not in texts]
    numbers = np.nan_to_num(np.stack([found[name] for name in names], axis=1))
    return {name: place for place, name in enumerate(names)}, numbers, texts


def runtime_of(folder: Path, task: str, features: Any, estimator: Any, classes: tuple[Any, ...]) -> OnnxRuntime:
    found = columns(features)
    known = {name: its if its.dtype == object else np.nan_to_num(its) for name, its in found.items()}
    shape = signature(task, features, **({"classes": classes, "positive_class": classes[-1]} if classes else {}))
    first = known[features[0].name]
    bounds = [0.0] if len(classes) == 2 else [-0.5, 0.5]
    target: Any = np.array(classes)[np.digitize(first, bounds)] if classes else first * 2 + 1
    packed = bundle(folder / "b", estimator, shape, known, target)
    runtime = load(packed.folder, packed.manifest)
    assert isinstance(runtime, OnnxRuntime), packed.manifest.parity
    return runtime


def way_of(runtime: OnnxRuntime) -> str:
    return "linear" if runtime._linear is not None else "bound" if runtime._free else ""


def is_same(one: Predicted, row: int, all_of_them: Predicted) -> bool:
    """Return whether the answer to one row is that to the row among others."""
    label, chances = all_of_them.labels[row : row + 1], all_of_them.probabilities
    if one.labels.shape != label.shape or one.labels.dtype != label.dtype:
        return False
    if one.probabilities is None or chances is None:
        return chances is None and bool(np.allclose(one.labels, label, atol=1e-6))
    chance = chances[row : row + 1]
    return one.labels.tolist() == label.tolist() and bool(np.allclose(one.probabilities, chance, atol=1e-6))


@pytest.mark.parametrize(
    ("task", "features", "estimator", "classes", "way"),
    [
        ("classification", NUMBERS, SCALED, (0, 1), "linear"),
        ("classification", NUMBERS, LogisticRegression(C=1e9), (3, 7), "linear"),
        ("classification", NUMBERS, SCALED, (0, 1, 2), "bound"),
        ("classification", NUMBERS, FOREST, (0, 1), "bound"),
        ("regression", NUMBERS, make_pipeline(StandardScaler(), LinearRegression()), (), "linear"),
        ("regression", NUMBERS, LinearRegression(fit_intercept=False), (), "linear"),
        ("regression", NUMBERS, RandomForestRegressor(5, random_state=0), (), "bound"),
        ("classification", NUMBERS, SCALED, ("down", "up"), ""),
        ("classification", MIXED, MIXTURE, (0, 1), ""),
    ],
    ids=[
        "linear",
        "far from even",
        "three classes",
        "forest",
        "regression",
        "no intercept",
        "regression by trees",
        "text labels",
        "text features",
    ],
)
def test_a_row_by_itself_is_answered_as_among_others(
    task: str, features: Any, estimator: Any, classes: tuple[Any, ...], way: str, tmp_path: Path
) -> None:
    runtime = runtime_of(tmp_path, task, features, estimator, classes)
    assert way_of(runtime) == way
    places, numbers, texts = table(features, ROWS)
    among = runtime.predict(Table(places, numbers, texts))

    alone = []
    for row in range(ROWS):
        part = slice(row, row + 1)
        alone.append(runtime.predict(Table(places, numbers[part], {name: its[part] for name, its in texts.items()})))

    # All are looked at behind the last: none is written over by the next.
    assert all(is_same(one, row, among) for row, one in enumerate(alone))


@pytest.mark.parametrize("estimator", [SCALED, FOREST], ids=["linear", "bound"])
def test_rows_of_several_threads_do_not_meet(estimator: Any, tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, estimator, (0, 1))
    places, numbers, _ = table(NUMBERS, ROWS)
    among = runtime.predict(Table(places, numbers, {}))

    def ask(first: int) -> bool:
        rows = [(first + step * 7) % ROWS for step in range(500)]
        return all(is_same(runtime.predict(Table(places, numbers[row : row + 1], {})), row, among) for row in rows)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(8)))
    assert len(runtime._free) == (estimator is FOREST)


@pytest.mark.parametrize("estimator", [SCALED, FOREST], ids=["linear", "bound"])
def test_a_row_that_fails_leaves_room_for_the_next(estimator: Any, tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, estimator, (0, 1))
    places, numbers, _ = table(NUMBERS, 1)
    with pytest.raises(ValueError, match="broadcast"):
        runtime.predict(Table(places, np.zeros((1, 3), np.float32), {}))

    assert runtime.predict(Table(places, numbers, {})).labels.shape == (1,)


@pytest.mark.parametrize("said", [-1e30, -800.0, -0.0, 0.0, 800.0, 1e30])
def test_chances_are_chances_however_large_the_odds(said: float) -> None:
    found = LinearRow(Linear([0.0], [1.0], said, [0, 1]))(np.zeros((1, 1), np.float32))
    assert found.probabilities is not None
    assert found.labels.tolist() == [int(said > 0)]
    assert found.probabilities.tolist() == [[float(said <= 0), float(said > 0)] if said else [0.5, 0.5]]


def test_what_is_no_number_has_no_chance() -> None:
    found = LinearRow(Linear([0.0], [1.0], 0.0, [0, 1]))(np.full((1, 1), np.nan, np.float32))
    assert found.probabilities is not None and np.isnan(found.probabilities).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda linear: b"{}",
        lambda linear: b"nothing",
        lambda linear: change(linear, intercept=linear.intercept + 0.1),
        lambda linear: change(linear, coefficients=linear.coefficients[::-1]),
        lambda linear: change(linear, coefficients=linear.coefficients[:1]),
        lambda linear: change(linear, offsets=[0.0, 1.0]),
        lambda linear: change(linear, offsets=[0.0] * 3, coefficients=[1.0] * 3),
        lambda linear: change(linear, offsets=[], coefficients=[]),
        lambda linear: change(linear, classes=[1, 0]),
        lambda linear: change(linear, classes=[]),
    ],
    ids=["fields", "no JSON", "intercept", "order", "length", "offsets", "more", "none", "classes", "no classes"],
)
def test_a_twin_that_says_what_it_is_not_is_not_believed(wrong: Callable[[Linear], bytes], tmp_path: Path) -> None:
    sample, shape = columns(NUMBERS), signature("classification", NUMBERS)
    packed = bundle(tmp_path / "b", SCALED, shape, sample, (sample["a"] + 3 * sample["b"] > 0).astype(int))
    file = packed.folder / ONNX_FILE
    model = onnx.load(str(file))
    assert linear_row(InferenceSession(file.read_bytes()), "classification") is not None

    (said,) = (one for one in model.metadata_props if one.key == LINEAR)
    said.value = wrong(msgspec.json.decode(said.value, type=Linear)).decode()

    assert linear_row(InferenceSession(model.SerializeToString()), "classification") is None


def change(linear: Linear, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(linear, **changes))
