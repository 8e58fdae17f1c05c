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
from modelyard_bundle.probe import replay, write_probe
from modelyard_bundle.runtimes.base import ONNX_FILE, Predicted
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_bundle.runtimes.onnx_rows import LINEAR, BoundRow, Linear, LinearRow, linear_row
from modelyard_bundle.signature import Columns, Table
from modelyard_bundle.twin import _convert, make_twin
from modelyard_common.errors import Invalid
from onnxruntime import InferenceSession
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
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


UNSCALED = columns(NUMBERS, 500)
HEIGHTS = {"a": 2000 + 10 * UNSCALED["a"], "b": 170 + 8 * UNSCALED["b"]}
STAMPS = {"a": 1.7e9 + 1e7 * UNSCALED["a"], "b": 1e-6 * UNSCALED["b"]}
FAR = {"a": 1e6 + UNSCALED["a"], "b": -1e5 + 1e3 * UNSCALED["b"]}


@pytest.mark.parametrize("sample", [UNSCALED, HEIGHTS, STAMPS, FAR], ids=["even", "heights", "stamps", "far"])
@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "as they are"])
@pytest.mark.parametrize(
    ("model", "target"),
    [
        (LogisticRegression(max_iter=5000), "class"),
        (LinearRegression(), "price"),
        (LinearRegression(), "dust"),
        (LinearRegression(fit_intercept=False), "price"),
        (Lasso(alpha=1e9), "price"),
    ],
    ids=["classes", "large values", "tiny values", "no intercept", "no features"],
)
def test_a_twin_that_says_what_it_is_is_believed_and_not_by_one_wrong_number(
    sample: Any, scaled: bool, model: Any, target: str
) -> None:
    rows = np.stack([sample["a"], sample["b"]], axis=1).astype(np.float32)
    near = UNSCALED["a"] + 2 * UNSCALED["b"]
    wanted = {"class": (near > 0.3).astype(int), "price": 200_000 + 3000 * near, "dust": 1e-6 * near}[target]
    task = "classification" if target == "class" else "regression"
    estimator = make_pipeline(StandardScaler(), model) if scaled else model
    twin = onnx.load_model_from_string(_convert(estimator.fit(rows, wanted), signature(task, NUMBERS)))
    (said,) = (one for one in twin.metadata_props if one.key == LINEAR)
    linear = msgspec.json.decode(said.value, type=Linear)

    def is_believed(**changes: Any) -> bool:
        said.value = change(linear, **changes).decode()
        return linear_row(InferenceSession(twin.SerializeToString()), task) is not None

    assert is_believed()
    coefficients = linear.coefficients
    for place, one in enumerate(coefficients):
        for wrong in (-one, one / 2, 1.05 * one) if one else (max(map(abs, coefficients)) or 1.0,):
            assert not is_believed(coefficients=[*coefficients[:place], wrong, *coefficients[place + 1 :]])
    assert not is_believed(intercept=1.1 * linear.intercept + 0.1)


@pytest.mark.parametrize("intercept", [-3843.5, 0.0, 200_000.0])
def test_a_row_by_itself_is_held_to_the_probe_set(intercept: float, tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, SCALED, (0, 1))
    shape = signature("classification", NUMBERS)
    replay(runtime, shape, tmp_path / "b")

    runtime._linear = LinearRow(Linear([0.0, 0.0], [1.0, 1.0], intercept, [0, 1]))

    with pytest.raises(Invalid, match="probe rows are not answered as recorded by the onnx runtime"):
        replay(runtime, shape, tmp_path / "b")


def test_a_twin_whose_rows_by_themselves_are_answered_otherwise_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = LinearRow(Linear([0.0, 0.0], [1.0, 1.0], 0.0, [0, 1]))
    monkeypatch.setattr("modelyard_bundle.runtimes.onnx.linear_row", lambda session, task: wrong)
    sample = columns(NUMBERS)

    packed = bundle(tmp_path / "b", SCALED, signature("classification", NUMBERS), sample, (sample["a"] > 0).astype(int))

    assert packed.manifest.runtimes == ("sklearn",)
    assert packed.manifest.parity.startswith("rows by themselves: ")


@pytest.mark.parametrize(("odds", "either"), [(0.0, True), (1e-4, True), (-1e-4, True), (1e-3, False), (-1e-3, False)])
def test_where_chances_are_even_either_label_is_right(odds: float, either: bool, tmp_path: Path) -> None:
    sample, shape = columns(NUMBERS), signature("classification", NUMBERS)
    fitted = LogisticRegression().fit(np.stack([sample["a"], sample["b"]], axis=1), sample["a"] > 0.3)
    fitted.classes_ = np.array([0, 1])
    weights = fitted.coef_[0]
    a, b = (odds - fitted.intercept_[0]) * weights / weights.dot(weights)
    rows = [{"a": float(a), "b": float(b)}, {"a": 3.0, "b": 0.0}, {"a": -3.0, "b": 0.0}]
    asked = {name: np.array([row[name] for row in rows], dtype=np.float32) for name in ("a", "b")}
    chances = fitted.predict_proba(np.stack([asked["a"], asked["b"]], axis=1)).astype(np.float32)

    for label in (0, 1):
        recorded = Predicted(np.array([label, 1, 0]), chances)
        right = either or label == (odds > 0)
        write_probe(tmp_path, rows, recorded)
        assert make_twin(tmp_path, fitted, shape, asked, recorded).held == right
        (tmp_path / ONNX_FILE).write_bytes(_convert(fitted, shape))
        if right:
            replay(OnnxRuntime(tmp_path, shape), shape, tmp_path)
        else:
            with pytest.raises(Invalid, match="1 of 3 probe rows"):
                replay(OnnxRuntime(tmp_path, shape), shape, tmp_path)


@pytest.mark.parametrize(
    ("estimator", "classes", "most"),
    [(SCALED, (0, 1), 64), (KNeighborsClassifier(algorithm="brute"), (0, 1), 4), (SCALED, ("down", "up"), 0)],
    ids=["linear", "neighbours", "no way of its own"],
)
def test_rows_are_asked_by_themselves_where_that_is_another_way_and_quick(
    estimator: Any, classes: tuple[Any, ...], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    said = OnnxRuntime.predict

    def counted(self: OnnxRuntime, columns: Columns) -> Predicted:
        asked.append(len(columns["a"]))
        return said(self, columns)

    monkeypatch.setattr(OnnxRuntime, "predict", counted)
    runtime = runtime_of(tmp_path, "classification", NUMBERS, estimator, classes)
    assert asked == [300] + [1] * most

    asked.clear()
    shape = signature("classification", NUMBERS, classes=classes, positive_class=classes[-1])
    replay(runtime, shape, tmp_path / "b")
    assert asked == [64] + [1] * most


def test_labels_with_an_axis_too_many_are_labels(tmp_path: Path) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, QuadraticDiscriminantAnalysis(), (0, 1, 2))
    (label, _) = runtime._session.get_outputs()
    assert len(label.shape) == 2
    places, numbers, _ = table(NUMBERS, ROWS)

    assert runtime.predict(Table(places, numbers, {})).labels.shape == (ROWS,)
    assert runtime.predict(Table(places, numbers[:1], {})).labels.shape == (1,)


def test_answers_of_another_shape_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(tmp_path, "classification", NUMBERS, FOREST, (0, 1))
    said = OnnxRuntime.predict

    def turned(self: OnnxRuntime, asked: Columns) -> Predicted:
        labels, chances = said(self, asked)
        return Predicted(labels.reshape(1, -1), chances)

    monkeypatch.setattr(OnnxRuntime, "predict", turned)
    sample = columns(NUMBERS)
    packed = bundle(
        tmp_path / "turned", FOREST, signature("classification", NUMBERS), sample, (sample["a"] > 0).astype(int)
    )

    assert packed.manifest.parity == "no twin: its answers have another shape than the estimator's"
    with pytest.raises(Invalid, match="another number of classes, or of answers"):
        replay(runtime, signature("classification", NUMBERS), tmp_path / "b")


def test_a_session_that_declares_another_size_than_it_gives_is_asked_the_usual_way() -> None:
    rows, shape = np.stack([UNSCALED["a"], UNSCALED["b"]], axis=1), signature("classification", NUMBERS)
    session = InferenceSession(_convert(RidgeClassifier().fit(rows, rows[:, 0] > 0), shape))
    names = [entry.name for entry in session.get_outputs()]
    assert session.get_outputs()[1].shape == [None, 2]
    assert session.run(names, {"numbers": rows[:1]})[1].shape == (1, 1)

    assert BoundRow.of(session, names) is None


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_more_outputs_than_answers_are_not_asked_for(task: str, tmp_path: Path) -> None:
    classes = (0, 1) if task == "classification" else ()
    estimator = FOREST if classes else RandomForestRegressor(5, random_state=0)
    runtime_of(tmp_path, task, NUMBERS, estimator, classes)
    file = tmp_path / "b" / ONNX_FILE
    model = onnx.load(str(file))
    for name in ("more", "still_more"):
        model.graph.node.append(onnx.helper.make_node("Identity", ["numbers"], [name]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]))
    onnx.save(model, str(file))

    shape = signature(task, NUMBERS)
    replay(OnnxRuntime(tmp_path / "b", shape), shape, tmp_path / "b")


def change(linear: Linear, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(linear, **changes))
