"""Contributions in trees: those of the formula over all subsets, of models as they are converted, exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_fakes import NOW, a_platform, a_server, digest_of
from modelyard_bundle.packaging import Packed, pack
from modelyard_bundle.runtimes.base import ONNX_FILE
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_common.clock import SystemClock
from modelyard_contracts.bundle_v1 import BundleManifest, Column, Lineage, Signature
from modelyard_inference.adapters import onnx_trees
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.adapters.onnx_trees import trees_of
from modelyard_inference.domain import shapley, tree_shapley
from modelyard_inference.domain.binding import Binder
from modelyard_inference.domain.requests import Rows
from modelyard_inference.domain.routing import Routing, Version
from modelyard_inference.domain.tree_shapley import Trees, features_of_columns, in_trees
from modelyard_inference.usecases import explain
from modelyard_inference.usecases.explain import Explain, Explained, ExplainLimits
from modelyard_inference.usecases.play import Asked, Play, Target
from modelyard_inference.usecases.serving import LoadedVersion, ServedModels, Serving

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
    # The second feature became two columns; the last column is the same in all.
    changed = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], bool)

    assert features_of_columns(changed, row, background).tolist() == [0, 1, 1, 2, -1]  # type: ignore[union-attr]

    of_two = changed.copy()
    of_two[2, 0] = True
    assert features_of_columns(of_two, row, background) is None
    of_none = changed.copy()
    of_none[0, 0] = False
    assert features_of_columns(of_none, row, background) is None, "no feature alone makes it the row's"


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

    assert found == [None] * 4
    (tmp_path / ONNX_FILE).unlink()
    with pytest.raises(OSError, match="No such file"):
        trees_of(tmp_path, signature)


def test_a_large_file_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.tree import DecisionTreeClassifier

    signature, _ = _converted(tmp_path, DecisionTreeClassifier(max_depth=3), classes=2)
    assert trees_of(tmp_path, signature) is not None

    monkeypatch.setattr(onnx_trees, "_MOST_BYTES", 100)
    assert trees_of(tmp_path, signature) is None
    monkeypatch.undo()
    monkeypatch.setattr(onnx_trees, "_MOST_CONDITIONS", 5)
    assert trees_of(tmp_path, signature) is None


CHANCE = np.random.default_rng(0)
DAYS = ("mon", "tue", "sun")
SAMPLE: dict[str, Array] = {name: CHANCE.normal(size=400).astype(np.float32) for name in "abcde"}
SAMPLE["day"] = np.array(CHANCE.choice(DAYS, 400), dtype=object)
WORTH = SAMPLE["a"] * SAMPLE["b"] + np.sin(2 * SAMPLE["c"]) + (SAMPLE["day"] == "sun")
ASKED: list[dict[str, Any]] = [
    {name: column[place] if name == "day" else float(column[place]) for name, column in SAMPLE.items()}
    for place in (3, 77)
]


def _packed(folder: Path, model: Any, target: Array, *, classes: int, positive: int | None = None) -> Packed:
    """Pack a pipeline of five numbers and a category, which becomes three columns."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    of_day = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", "passthrough", [0, 1, 2, 3, 4]), ("day", of_day, [5])])
    fitted = Pipeline([("columns", columns), ("model", model)]).fit(pd.DataFrame(SAMPLE), target)
    return _bundle(folder, fitted, SAMPLE, classes=classes, positive=positive)


def _bundle(
    folder: Path, fitted: Any, sample: dict[str, Array], *, classes: int, positive: int | None = None
) -> Packed:
    signature = Signature(
        task="classification" if classes else "regression",
        features=tuple(Column(name=name, type="category" if name == "day" else "number") for name in sample),
        target="y",
        classes=tuple(range(classes)),
        positive_class=positive,
    )
    return pack(
        folder,
        model="power",
        estimator=fitted,
        signature=signature,
        sample=sample,
        lineage=Lineage(run="r", dataset=digest_of("d"), estimator=type(fitted).__name__),
        baseline_json="{}",
        metrics=(),
        created=NOW,
    )


class Shelf:
    """Gives one bundle."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed

    def open(self, model: str, digest: str) -> tuple[Path, BundleManifest]:
        return self.packed.folder, self.packed.manifest


class Asking:
    """Explains one bundle by its twin.

    Args:
        evaluations: with many the formula is used, with few the trees are.
    """

    def __init__(self, packed: Packed, evaluations: int) -> None:
        self.lane = ThreadLane("explaining", threads=1, depth=8)
        served, version = ServedModels(), Version(1, digest_of("a"))
        signature = packed.manifest.signature
        runtime = OnnxRuntime(packed.folder, signature)
        self.loaded = LoadedVersion(version, signature, runtime, Binder(signature))
        served.serve(Serving(Routing("power", 1, version), self.loaded))
        recorder = type("Recorder", (), {"explained": lambda *_: None, "not_explained": lambda *_: None})()
        limits = ExplainLimits(16, evaluations)
        self.explain = Explain(served, Shelf(packed), self.lane, recorder, SystemClock(), limits, trees_of)

    def __call__(self, rows: list[dict[str, Any]] = ASKED, timeout_s: float = 60.0) -> Explained:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return asyncio.run(self.explain("power", None, Rows(len(rows), columns), timeout_s))


@pytest.fixture
def asking() -> Iterator[Callable[[Packed, int], Asking]]:
    made: list[Asking] = []

    def make(packed: Packed, evaluations: int) -> Asking:
        made.append(Asking(packed, evaluations))
        return made[-1]

    yield make
    for one in made:
        one.lane.close()


FEW, MANY = 8_000, 10**6
"""Six features: the formula takes 4096 questions a row."""


def _models() -> dict[str, tuple[Any, int, int | None, str]]:
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
    )

    forest = RandomForestClassifier(9, max_depth=4, random_state=0)
    return {
        "forest": (forest, 2, 1, "probability"),
        "forest whose positive class is the first": (forest, 2, 0, "probability"),
        "forest of three classes, none of them positive": (forest, 3, None, "probability"),
        "values": (HistGradientBoostingRegressor(max_iter=9), 0, None, "value"),
        "boosted": (GradientBoostingClassifier(n_estimators=9), 2, 1, "log-odds"),
        "boosted, the first class": (HistGradientBoostingClassifier(max_iter=9), 2, 0, "log-odds"),
    }


@pytest.mark.parametrize("kind", _models())
def test_a_version_is_explained_by_its_trees_as_by_the_formula(
    tmp_path: Path, asking: Callable[[Packed, int], Asking], kind: str
) -> None:
    """A category that became several columns is one feature."""
    model, classes, positive, space = _models()[kind]
    target = np.digitize(WORTH, np.quantile(WORTH, np.arange(1, classes) / classes)) if classes else WORTH
    packed = _packed(tmp_path / "bundle", model, target, classes=classes, positive=positive)
    trees, formula = asking(packed, FEW), asking(packed, MANY)

    found, expected = trees(), formula()

    assert (found.method, found.space, expected.method) == ("trees", space, "exact")
    assert trees().rows == found.rows
    for place, (one, other) in enumerate(zip(found.rows, expected.rows, strict=True)):
        truth = other.contributions
        if space == "log-odds":
            loaded, [ground] = formula.loaded, formula.explain._grounds.values()
            columns = loaded.binder.bind(Rows(2, {name: [row[name] for row in ASKED] for name in ASKED[0]})).columns
            target_of = Target.of(loaded.signature, loaded.runtime.predict(columns), place)
            asked = Asked(SystemClock(), SystemClock().monotonic() + 60)
            play = Play("power", loaded, columns, place, ground, target_of, asked, logs=True)
            truth = dict(zip(truth, shapley.exact(play, 6, ground.rows).values.tolist(), strict=True))
        assert (one.prediction, one.label, one.standard_errors) == (other.prediction, other.label, None)
        assert one.contributions == pytest.approx(truth, abs=1e-4)
        assert one.base + sum(one.contributions.values()) == pytest.approx(one.answer, abs=1e-4)
        assert one.additivity_error == pytest.approx(0, abs=1e-4)


def test_a_server_explains_by_trees(tmp_path: Path) -> None:
    packed = _packed(tmp_path / "bundle", _forest(), WORTH, classes=0)

    with a_platform(tmp_path / "data") as platform, a_server(platform, (packed,), explain_evaluations=4000) as http:
        found = http.post("/v1/models/power:explain", json={"instances": ASKED[:1]}).raise_for_status().json()

    [one] = found["explanations"]
    assert (found["method"], found["space"], one["standard_errors"]) == ("trees", "value", None)
    assert one["base_value"] + sum(one["contributions"].values()) == pytest.approx(one["value"], abs=1e-4)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(9, max_depth=4, random_state=0)


def _mixed(folder: Path) -> Packed:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    rows = np.column_stack([SAMPLE[name] for name in "abcde"])
    return _bundle(
        folder,
        make_pipeline(PCA(3), _forest()).fit(rows, WORTH),
        {name: SAMPLE[name] for name in "abcde"},
        classes=0,
    )


def _of_three(folder: Path) -> Packed:
    """A column that no feature alone changes: the product of three that are mostly 0."""
    from sklearn.feature_selection import SelectFromModel
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler
    from sklearn.tree import DecisionTreeRegressor

    names = [f"x{place}" for place in range(12)]
    rows = (np.random.default_rng(2).random((3000, 12)) < 0.12).astype(np.float32)
    target = 30 * (rows[:, 0] * rows[:, 1] * rows[:, 2]) + rows[:, 3] + 0.5 * rows[:, 4] * rows[:, 5]
    products = make_pipeline(
        PolynomialFeatures(3, interaction_only=True, include_bias=False),
        SelectFromModel(DecisionTreeRegressor(max_depth=1)),
    )
    made = FeatureUnion([("raw", StandardScaler()), ("products", products)])
    return _bundle(
        folder,
        make_pipeline(made, _forest()).fit(rows, target),
        {name: rows[:, place] for place, name in enumerate(names)},
        classes=0,
    )


def _more_than_trees(folder: Path) -> Packed:
    """A twin that adds something to its trees, around answers beside which that is little."""
    import onnx

    rows = np.column_stack([SAMPLE[name] for name in "abcde"])
    sample = {name: SAMPLE[name] for name in "abcde"}
    packed = _bundle(folder, _forest().fit(rows, 1e6 + 200 * WORTH), sample, classes=0)
    path = packed.folder / ONNX_FILE
    model = onnx.load(path)
    [node] = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
    said, node.output[0] = node.output[0], "sum"
    weights = onnx.numpy_helper.from_array(np.array([[0], [0], [15], [0], [0]], np.float32), "weights")
    model.graph.initializer.append(weights)
    model.graph.node.append(onnx.helper.make_node("MatMul", ["numbers", "weights"], ["more"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["sum", "more"], [said]))
    path.write_bytes(model.SerializeToString())
    return packed


@pytest.mark.parametrize("make", [_mixed, _of_three, _more_than_trees])
def test_what_is_no_sum_of_trees_over_features_is_estimated(
    tmp_path: Path, asking: Callable[[Packed, int], Asking], make: Callable[[Path], Packed]
) -> None:
    packed = make(tmp_path / "bundle")
    names = [column.name for column in packed.manifest.signature.features]
    row = dict.fromkeys(names, 0.0) | {names[0]: 1.0, names[1]: 1.0}
    few = 2 ** len(names) * 64 - 1
    ask = asking(packed, min(few, 20_000))

    for _ in range(2):
        found = ask([row])
        assert found.method == "permutation"
        assert found.evaluations <= min(few, 20_000)
        assert found.rows[0].standard_errors is not None


def test_trees_that_take_too_long_are_sampled_and_tried_again_where_there_is_time(
    tmp_path: Path, asking: Callable[[Packed, int], Asking], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asking(_packed(tmp_path / "bundle", _forest(), WORTH, classes=0), FEW)

    monkeypatch.setattr(explain, "_TREES_SHARE", 1e-9)
    late = ask()
    monkeypatch.undo()
    [ground] = ask.explain._grounds.values()
    ground.slow_s, remembered = 100.0, ground.slow_s
    known = ask()
    ground.slow_s = remembered

    assert (late.method, known.method, ask().method) == ("permutation", "permutation", "trees")
    assert remembered > 0


def test_a_twin_that_is_not_there_for_a_moment_is_read_later(
    tmp_path: Path, asking: Callable[[Packed, int], Asking]
) -> None:
    packed = _packed(tmp_path / "bundle", _forest(), WORTH, classes=0)
    ask = asking(packed, FEW)
    (packed.folder / ONNX_FILE).rename(tmp_path / "away")
    without = ask()
    (tmp_path / "away").rename(packed.folder / ONNX_FILE)

    assert (without.method, ask().method) == ("permutation", "trees")


def test_trees_of_few_versions_are_kept(
    tmp_path: Path, asking: Callable[[Packed, int], Asking], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_KEPT_TREES", 0)
    ask = asking(_packed(tmp_path / "bundle", _forest(), WORTH, classes=0), FEW)

    assert ask().method == ask().method == "trees"
    [ground] = ask.explain._grounds.values()
    assert (ground.trees, ground.looked) == (None, False)
