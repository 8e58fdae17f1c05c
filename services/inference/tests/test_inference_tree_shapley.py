"""Contributions in trees: those of the formula over all subsets, of models as they are converted, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_bundle.runtimes.base import ONNX_FILE
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_inference.adapters.onnx_trees import trees_of
from modelyard_inference.domain import shapley, tree_shapley
from modelyard_inference.domain.tree_shapley import Trees, features_of_columns, in_trees

Array = npt.NDArray[Any]
NUMBERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, float("nan")])


@st.composite
def forests(draw: st.DrawFn) -> tuple[Trees, int]:
    """Draw some trees, each by asking at every place whether to go on, and how many columns they see."""
    columns = draw(st.integers(1, 5))
    leaves: list[list[tuple[int, float, bool, bool]]] = []

    def grow(path: list[tuple[int, float, bool, bool]], left: int) -> None:
        if path and (left == 0 or draw(st.booleans())):
            leaves.append(path)
            return
        column, most = draw(st.integers(0, columns - 1)), draw(st.sampled_from([-0.5, 0.0, 0.75]))
        missing_goes_up = draw(st.booleans())
        grow([*path, (column, most, True, missing_goes_up)], left - 1)
        grow([*path, (column, most, False, not missing_goes_up)], left - 1)

    count = draw(st.integers(1, 3))
    for _ in range(count):
        grow([], 4)
    asked = [condition for leaf in leaves for condition in leaf]
    trees = Trees(
        starts=np.cumsum([0, *map(len, leaves)])[:-1],
        columns=np.array([one[0] for one in asked], np.int32),
        thresholds=np.array([one[1] for one in asked], np.float32),
        wants_most=np.array([one[2] for one in asked]),
        takes_missing=np.array([one[3] for one in asked]),
        values=np.array([[draw(st.integers(-4, 4)), 1.0] for _ in leaves]),
        base=np.array([0.25, 0.0]),
        count=count,
    )
    return trees, columns


def rows_of(draw: st.DrawFn, count: int, width: int) -> Array:
    numbers = st.lists(NUMBERS, min_size=width, max_size=width)
    return np.array([draw(numbers) for _ in range(count)], np.float32)


@settings(max_examples=200)
@given(st.data(), forests(), st.booleans())
def test_contributions_are_those_of_the_formula(data: st.DataObject, drawn: tuple[Trees, int], in_pieces: bool) -> None:
    """Columns may be made of features of which there are fewer: they are taken together."""
    trees, columns = drawn
    features = data.draw(st.integers(1, columns))
    of_columns = np.array([data.draw(st.integers(0, features - 1)) for _ in range(columns)])
    row, *background = rows_of(data.draw, 4, columns)

    def play(taken: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        return trees.answers(np.where(taken[:, of_columns], row, np.array(background)[rows]))[:, 0]

    expected = shapley.exact(play, features, 3)
    with pytest.MonkeyPatch.context() as patch:
        if in_pieces:
            patch.setattr(tree_shapley, "_AT_ONCE", 4)
        found = in_trees(trees, row, np.array(background), of_columns, features, 0)

    assert found.values == pytest.approx(expected.values, abs=1e-9)
    assert (found.base, found.answer) == pytest.approx((expected.base, expected.answer))
    assert found.residue == pytest.approx(0, abs=1e-9)


def test_each_row_is_in_one_leaf_of_each_tree() -> None:
    @given(forests(), st.data())
    def holds(drawn: tuple[Trees, int], data: st.DataObject) -> None:
        trees, columns = drawn
        assert trees.answers(rows_of(data.draw, 3, columns))[:, 1].tolist() == [trees.count] * 3

    holds()


def test_columns_are_told_apart_by_what_changes_them() -> None:
    nan = float("nan")
    row = np.array([1.0, 0.0, 1.0, nan, 7.0], np.float32)
    background = np.array([[2.0, 1.0, 0.0, 3.0, 7.0], [1.0, 0.0, 1.0, nan, 7.0]], np.float32)
    # The second feature became two columns, the third one in which it is missing; the last column is always the same.
    swapped = np.repeat(background[None], 3, axis=0)
    swapped[0, :, 0] = row[0]
    swapped[1, :, 1:3] = row[1:3]
    swapped[2, :, 3] = row[3]

    assert features_of_columns(row, background, swapped).tolist() == [0, 1, 1, 2, -1]  # type: ignore[union-attr]

    mixed = swapped.copy()
    mixed[2, 0, 0] = 5.0
    assert features_of_columns(row, background, mixed) is None, "a column of two features"
    half = swapped.copy()
    half[0, 0, 0] = 1.5
    assert features_of_columns(row, background, half) is None, "a column that is not the row's when its feature is"


WIDTH = 6
NAMES = [f"x{place}" for place in range(WIDTH)]


def _converted(folder: Path, estimator: Any, *, classes: int, seed: int = 0) -> tuple[Signature, Array]:
    """Fit an estimator, write its twin, and return its signature and some rows."""
    from skl2onnx import to_onnx

    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(300, WIDTH)).astype(np.float32)
    worth = rows[:, 0] * rows[:, 1] + np.sin(2 * rows[:, 2]) + 0.2 * chance.normal(size=300)
    target = np.digitize(worth, np.quantile(worth, np.arange(1, classes) / classes)) if classes else worth
    estimator.fit(rows, target)
    from skl2onnx.common.data_types import FloatTensorType

    options = {"zipmap": False} if classes else None
    model = to_onnx(estimator, initial_types=[("numbers", FloatTensorType([None, WIDTH]))], options=options)
    (folder / ONNX_FILE).write_bytes(model.SerializeToString())
    features = tuple(Column(name=name, type="number") for name in NAMES)
    signature = Signature(
        task="classification" if classes else "regression", features=features, target="y", classes=tuple(range(classes))
    )
    return signature, rows


def _kinds() -> dict[str, tuple[Any, int, bool]]:
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    return {
        "forest": (RandomForestClassifier(7, random_state=0), 2, False),
        "forest of three classes": (RandomForestClassifier(7, random_state=0), 3, False),
        "extra trees": (ExtraTreesClassifier(7, random_state=0), 2, False),
        "tree": (DecisionTreeClassifier(random_state=0), 2, False),
        "boosted": (GradientBoostingClassifier(n_estimators=9, random_state=0), 2, True),
        "histogram": (HistGradientBoostingClassifier(max_iter=9, random_state=0), 2, True),
        "forest of values": (RandomForestRegressor(7, random_state=0), 0, False),
        "extra trees of values": (ExtraTreesRegressor(7, random_state=0), 0, False),
        "boosted values": (GradientBoostingRegressor(n_estimators=9, random_state=0), 0, False),
        "histogram of values": (HistGradientBoostingRegressor(max_iter=9, random_state=0), 0, False),
        "behind a scaler": (make_pipeline(StandardScaler(), RandomForestClassifier(7, random_state=0)), 2, False),
    }


@pytest.mark.parametrize("kind", _kinds())
def test_trees_of_a_twin_say_what_it_answers(tmp_path: Path, kind: str) -> None:
    estimator, classes, in_logs = _kinds()[kind]
    signature, rows = _converted(tmp_path, estimator, classes=classes)
    columns = {name: rows[:, place] for place, name in enumerate(NAMES)}

    model = trees_of(tmp_path, signature)

    assert model is not None
    said = model.trees.answers(model.see(columns))
    answered = OnnxRuntime(tmp_path, signature).predict(columns)
    if answered.probabilities is None:
        assert said[:, 0] == pytest.approx(answered.labels, rel=1e-4, abs=1e-4)
    elif in_logs:
        assert 1 / (1 + np.exp(-said)) == pytest.approx(answered.probabilities, abs=1e-5)
    else:
        assert said == pytest.approx(answered.probabilities, abs=1e-5)


def test_what_is_not_understood_is_left_alone(tmp_path: Path) -> None:
    from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    found = []
    for estimator, classes in (
        (LogisticRegression(), 2),
        (AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=3), 2),  # several ensembles
        (HistGradientBoostingClassifier(max_iter=3), 3),  # a softmax
    ):
        signature, _ = _converted(tmp_path, estimator, classes=classes)
        found.append(trees_of(tmp_path, signature))
    (tmp_path / ONNX_FILE).write_bytes(b"\xff" * 64)
    found.append(trees_of(tmp_path, signature))
    (tmp_path / ONNX_FILE).unlink()
    found.append(trees_of(tmp_path, signature))

    assert found == [None] * 5
