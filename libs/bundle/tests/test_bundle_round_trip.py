"""Pack, verify, load, replay: what a run hands over answers elsewhere as it did where it was made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_makers import (
    MIXED,
    NUMBERS,
    anomaly_bundle,
    bundle,
    classifier_bundle,
    columns,
    regressor_bundle,
    signature,
)
from modelyard_bundle import twin
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.packaging import Packed, environment
from modelyard_bundle.probe import PROBE_FILE, replay
from modelyard_bundle.runtimes.base import ONNX_FILE, positive_scores
from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

Maker = Callable[[Path], Packed]
MAKERS = [classifier_bundle, regressor_bundle, anomaly_bundle]


def arrived(packed: Packed, folder: Path) -> Path:
    """Return the bundle as another machine gets it, verified."""
    shutil.copytree(packed.folder, folder)
    assert verify(folder, packed.digest) == packed.manifest
    return folder


@pytest.mark.parametrize("make", MAKERS)
def test_every_runtime_of_a_bundle_answers_the_probe_set_as_recorded(make: Maker, tmp_path: Path) -> None:
    packed = make(tmp_path / "made")
    folder = arrived(packed, tmp_path / "arrived")

    for name in packed.manifest.runtimes:
        runtime = load(folder, packed.manifest, prefer=name)
        assert runtime.name == name
        replay(runtime, packed.manifest.signature, folder)


@pytest.mark.parametrize("make", [classifier_bundle, regressor_bundle])
def test_a_twin_that_holds_is_preferred_and_agrees_on_rows_that_it_was_not_compared_on(
    make: Maker, tmp_path: Path
) -> None:
    packed = make(tmp_path / "made")
    manifest = packed.manifest
    unseen = columns(MIXED, rows=500, seed=99)
    unseen["day"][:5] = "a day that never was"

    assert manifest.runtimes == ("onnx", "sklearn")
    assert "in 300 rows" in manifest.parity
    twin_says = load(packed.folder, manifest).predict(unseen)
    estimator_says = load(packed.folder, manifest, prefer="sklearn").predict(unseen)
    if manifest.signature.task == "regression":
        np.testing.assert_allclose(twin_says.labels, estimator_says.labels, rtol=1e-4, atol=0.1)
    else:
        assert twin_says.labels.tolist() == estimator_says.labels.tolist()
        np.testing.assert_allclose(twin_says.probabilities, estimator_says.probabilities, atol=1e-5)


def test_classes_that_are_words_come_back_as_words(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    words = np.where(sample["a"] > 0, "up", "down")
    shape = signature(features=NUMBERS, classes=("down", "up"), positive_class="up")
    packed = bundle(tmp_path / "b", LogisticRegression(), shape, sample, words)

    answers = [load(packed.folder, packed.manifest, prefer=name).predict(sample) for name in packed.manifest.runtimes]

    assert len(answers) == 2
    for answer in answers:
        assert set(answer.labels.tolist()) == {"up", "down"}
        scores = positive_scores(shape, answer)
        assert scores is not None
        assert ((scores > 0.5) == (answer.labels == "up")).all()


def test_three_classes_keep_the_order_of_the_signature(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    target = np.digitize(sample["a"], [-0.5, 0.5])
    shape = signature(features=NUMBERS, classes=(0, 1, 2), positive_class=None)
    packed = bundle(tmp_path / "b", RandomForestClassifier(10, random_state=0), shape, sample, target)

    answer = load(packed.folder, packed.manifest).predict(sample)

    assert packed.manifest.runtimes[0] == "onnx"
    assert answer.probabilities is not None
    assert answer.probabilities.shape == (300, 3)
    assert (answer.probabilities.argmax(axis=1) == answer.labels).all()


def test_an_anomaly_detector_has_no_twin_says_so_and_scores_outliers_higher(tmp_path: Path) -> None:
    packed = anomaly_bundle(tmp_path / "b")
    rows = {"a": np.asarray([0, 50], dtype=np.float32), "b": np.asarray([0, -50], dtype=np.float32)}

    answer = load(packed.folder, packed.manifest).predict(rows)
    scores = positive_scores(packed.manifest.signature, answer)

    assert packed.manifest.runtimes == ("sklearn",)
    assert packed.manifest.parity == "no twin: anomaly detectors are served by scikit-learn"
    assert answer.labels.tolist() == [0, 1]
    assert scores is not None
    assert scores[1] > scores[0]


def test_an_estimator_that_cannot_be_converted_is_served_by_itself_and_the_manifest_says_why(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    # log1p of a data frame: nothing that ONNX converters know.
    model = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    positive = {name: np.abs(values) for name, values in sample.items()}
    target = (sample["a"] > 0).astype(int)
    packed = bundle(tmp_path / "b", model, signature(features=NUMBERS), positive, target)

    assert packed.manifest.runtimes == ("sklearn",)
    assert packed.manifest.parity.startswith("no twin: the conversion failed (")
    assert not (packed.folder / ONNX_FILE).exists()
    replay(load(packed.folder, packed.manifest), packed.manifest.signature, packed.folder)


def test_a_twin_that_answers_otherwise_is_dropped_and_the_difference_named(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    target = (sample["a"] > 0).astype(int)
    packed = bundle(tmp_path / "b", LogisticRegression(), signature(features=NUMBERS), sample, target)
    other = LogisticRegression().fit(np.stack([sample["a"], sample["b"]], axis=1), 1 - target)
    answers = load(packed.folder, packed.manifest, prefer="sklearn").predict(sample)

    parity = twin.make_twin(tmp_path / "b", other, packed.manifest.signature, sample, answers)

    assert not parity.held
    assert parity.sentence.startswith("300 labels differ") or int(parity.sentence.split()[0]) > 200
    assert not (packed.folder / ONNX_FILE).exists()


def test_a_forest_over_the_bound_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "_MOST_NODES", 100)

    packed = classifier_bundle(tmp_path / "b")

    assert packed.manifest.runtimes == ("sklearn",)
    assert "more than the 100 that are converted" in packed.manifest.parity
    assert not (packed.folder / ONNX_FILE).exists()


def test_missing_values_are_in_the_probe_set_and_survive_json(good: Packed) -> None:
    document = json.loads((good.folder / PROBE_FILE).read_text())

    assert 0 < len(document["rows"]) <= 64
    assert any(row["price"] is None for row in document["rows"])
    assert all(isinstance(row["holiday"], bool) and isinstance(row["day"], str) for row in document["rows"])
    assert "NaN" not in (good.folder / PROBE_FILE).read_text()


def logistic() -> LogisticRegression:
    """Return a regression that was fitted on the two numbers, and takes no missing ones."""
    sample = columns(NUMBERS)
    return LogisticRegression().fit(as_frame(signature(features=NUMBERS), sample), (sample["a"] > 0).astype(int))


def test_required_values_that_the_data_lacked_are_asked_as_zero(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    sample["b"][::2] = np.nan
    model = HistGradientBoostingClassifier(max_iter=2, early_stopping=False)

    packed = bundle(tmp_path / "b", model, signature(features=NUMBERS), sample, (sample["a"] > 0).astype(int))

    rows = json.loads((packed.folder / PROBE_FILE).read_text())["rows"]
    asked = [row["b"] for row in rows]
    assert all(isinstance(value, float) for value in asked)
    assert 0.0 in asked


def test_an_estimator_that_does_not_answer_its_sample_is_not_packed(tmp_path: Path) -> None:
    sample = columns(NUMBERS)
    sample["b"][7] = np.nan

    with pytest.raises(Invalid, match=r"^the estimator does not answer the sample \(ValueError\)"):
        bundle(tmp_path / "b", logistic(), signature(features=NUMBERS), sample)


def test_one_row_is_enough_for_a_bundle(tmp_path: Path) -> None:
    one = {name: values[:1] for name, values in columns(NUMBERS).items()}

    packed = bundle(tmp_path / "b", logistic(), signature(features=NUMBERS), one)

    assert packed.manifest.parity.endswith("in 1 rows")
    replay(load(packed.folder, packed.manifest), packed.manifest.signature, packed.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": [0] * 64, "probabilities": None}, "rows are not answered as recorded by the onnx"),
        ({"predictions": [1]}, "holds 1 answers"),
        ({"predictions": "up"}, "cannot be read"),
        ({"probabilities": [[0.5]] * 64}, "another number of classes"),
        ({"rows": [{"load": 1.0}] * 64}, r"\[0\]\.day: is required"),
        ({"rows": [], "predictions": []}, "there are no rows"),
        ({"rows": 7}, "cannot be read"),
    ],
    ids=["other answers", "too few answers", "no list", "wrong width", "rows of another model", "no rows", "no table"],
)
def test_a_bundle_that_does_not_answer_its_probe_set_is_refused(
    good: Packed, copy: Callable[[], Path], changes: dict[str, object], message: str
) -> None:
    folder = copy()
    document = json.loads((folder / PROBE_FILE).read_text())
    (folder / PROBE_FILE).write_text(json.dumps(document | changes))

    with pytest.raises(Invalid, match=message):
        replay(load(folder, good.manifest), good.manifest.signature, folder)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"], ids=["none", "no JSON", "a list", "no fields"])
def test_a_probe_set_that_cannot_be_read_is_refused(
    good: Packed, copy: Callable[[], Path], content: str | None
) -> None:
    folder = copy()
    (folder / PROBE_FILE).unlink()
    if content is not None:
        (folder / PROBE_FILE).write_text(content)

    with pytest.raises(Invalid, match=r"probe\.json: cannot be read"):
        replay(load(folder, good.manifest), good.manifest.signature, folder)


def test_a_model_under_the_signature_of_another_is_refused(good: Packed) -> None:
    wider = good.manifest.signature.model_copy(update={"features": (*MIXED, Column(name="more", type="number"))})

    with pytest.raises(Invalid, match=r"model\.skops: takes 4 features, and the signature has 5"):
        load(good.folder, good.manifest.model_copy(update={"signature": wider}), prefer="sklearn")
    with pytest.raises(Invalid, match=r"model\.onnx: takes numbers\[3\], text_0\[1\], and the signature has numbers"):
        load(good.folder, good.manifest.model_copy(update={"signature": wider}), prefer="onnx")


def test_columns_in_another_order_are_taken_by_name_or_found_by_the_probe_set(good: Packed) -> None:
    load_, day, price, holiday = MIXED
    turned = good.manifest.signature.model_copy(update={"features": (price, day, load_, holiday)})
    manifest = good.manifest.model_copy(update={"signature": turned})

    replay(load(good.folder, manifest, prefer="sklearn"), turned, good.folder)
    with pytest.raises(Invalid, match="not answered as recorded by the onnx runtime"):
        replay(load(good.folder, manifest, prefer="onnx"), turned, good.folder)


@pytest.mark.parametrize(
    ("runtimes", "why"),
    [((), "no runtime"), (("remote",), "no runtime for remote"), (("pyfunc",), "is code, and is loaded only in")],
)
def test_a_bundle_without_a_runtime_for_this_process_says_so(good: Packed, runtimes: tuple[str, ...], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        load(good.folder, good.manifest.model_copy(update={"runtimes": runtimes}))


def test_the_environment_names_what_fitted_the_model() -> None:
    assert {"python", "scikit-learn", "numpy", "skops", "onnxruntime"} <= environment().keys()
