"""One row by itself runs in memory of its own: it says what it says among others, to each thread its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundle_makers import MIXED, NUMBERS, bundle, columns, mixed_pipeline, signature
from modelyard_bundle.loading import load
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_bundle.signature import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROWS = 40
SCALED = make_pipeline(StandardScaler(), LogisticRegression())
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
    target: Any = known[features[0].name] > 0
    target = np.array(classes)[target.astype(int)] if classes else known[features[0].name] * 2
    packed = bundle(folder / "b", estimator, shape, known, target)
    runtime = load(packed.folder, packed.manifest)
    assert isinstance(runtime, OnnxRuntime), packed.manifest.parity
    return runtime


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
    ("task", "features", "estimator", "classes", "is_lone"),
    [
        ("classification", NUMBERS, SCALED, (0, 1), True),
        ("classification", NUMBERS, RandomForestClassifier(5, random_state=0), (0, 1), True),
        ("regression", NUMBERS, LinearRegression(), (), True),
        ("classification", NUMBERS, SCALED, ("down", "up"), False),
        ("classification", MIXED, MIXTURE, (0, 1), False),
    ],
    ids=["linear", "forest", "regression", "text labels", "text features"],
)
def test_a_row_by_itself_is_answered_as_among_others(
    task: str, features: Any, estimator: Any, classes: tuple[Any, ...], is_lone: bool, tmp_path: Path
) -> None:
    runtime = runtime_of(tmp_path, task, features, estimator, classes)
    assert bool(runtime._free) is is_lone
    places, numbers, texts = table(features, ROWS)
    among = runtime.predict(Table(places, numbers, texts))

    alone = []
    for row in range(ROWS):
        part = slice(row, row + 1)
        alone.append(runtime.predict(Table(places, numbers[part], {name: its[part] for name, its in texts.items()})))

    # All are looked at behind the last: none is written over by the next.
    assert all(is_same(one, row, among) for row, one in enumerate(alone))


def test_rows_of_several_threads_do_not_meet(tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, SCALED, (0, 1))
    places, numbers, _ = table(NUMBERS, ROWS)
    among = runtime.predict(Table(places, numbers, {}))

    def ask(first: int) -> bool:
        rows = [(first + step * 7) % ROWS for step in range(500)]
        return all(is_same(runtime.predict(Table(places, numbers[row : row + 1], {})), row, among) for row in rows)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(8)))
    assert len(runtime._free) == 1


def test_a_row_that_fails_leaves_room_for_the_next(tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, SCALED, (0, 1))
    places, numbers, _ = table(NUMBERS, 1)
    with pytest.raises(ValueError, match="broadcast"):
        runtime.predict(Table(places, np.zeros((1, 3), np.float32), {}))

    assert runtime.predict(Table(places, numbers, {})).labels.shape == (1,)
    assert len(runtime._free) == 1
