"""Models that were fitted elsewhere: what is taken as it was fitted, and what is refused with which sentence."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import columns_from_rows
from modelyard_common.errors import Invalid, NotFound, Unauthenticated, Unavailable
from modelyard_contracts.registry_v1 import VersionView
from modelyard_trainer.bring import bring
from modelyard_trainer.tracker import MlflowTracker, skops_file
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC
from trainer_yard import Yard, policy, stream


def people(rows: int = 200) -> pd.DataFrame:
    """Return rows with a category between the numbers."""
    generator = np.random.default_rng(3)
    frame = pd.DataFrame({"age": generator.normal(size=rows), "place": generator.choice(["north", "south"], rows)})
    frame["wage"] = generator.normal(size=rows)
    above = frame["age"] + (frame["place"] == "south") * 2 - 1 + frame["wage"] > 0
    return frame.assign(y=np.where(above, "yes", "no"))


def applied(yard: Yard, name: str, frame: pd.DataFrame, **changes: Any) -> None:
    """Apply a model that never trains by itself here."""
    spec = policy(yard.upload(frame, name), **changes)
    yard.apply(name, spec)


def plain(**data: Any) -> dict[str, Any]:
    """Return parts of a policy for rows without a time."""
    return {
        "data": {"source": {"uri": "dataset://sha256:" + "0" * 64}, "target": "y"} | data,
        "train": {"recipe": {"estimator": "logistic_regression"}},
    }


def brought(yard: Yard, name: str, estimator: Any, sample: pd.DataFrame) -> VersionView:
    folder = yard.root / f"brought-{name}"
    folder.mkdir(exist_ok=True)
    skops.io.dump(estimator, folder / "model.skops")
    sample.to_parquet(folder / "sample.parquet", index=False)
    return bring(
        folder / "model.skops",
        model=name,
        data=folder / "sample.parquet",
        registry=yard.registry,
        tracker=MlflowTracker(yard.mlflow_url, run="external"),
    )


def served(yard: Yard, version: VersionView, rows: pd.DataFrame) -> Predicted:
    """Return what a server answers that loads the version."""
    folder = yard.registry.download_bundle(version.model, version.digest, yard.root / f"served-{version.model}")
    manifest = verify(folder, version.digest)
    names = [column.name for column in manifest.signature.features]
    return load(folder, manifest).predict(columns_from_rows(manifest.signature, rows[names].to_dict(orient="records")))


def test_brought_model_is_judged_and_keeps_the_order_of_its_own_columns(yard: Yard) -> None:
    frame = stream(400)
    applied(yard, "reversed", frame)
    fitted = LogisticRegression().fit(frame[["c", "b", "a"]][:200], frame["y"][:200])

    version = brought(yard, "reversed", fitted, frame[200:])

    assert (version.state, version.run) == ("champion", "external")
    assert version.verdict is not None and version.verdict.decision == "promote"
    assert version.evaluation is not None and version.evaluation.rows == 200
    assert "onnx" in version.manifest.runtimes
    assert version.data_until is None, "nobody knows what it has learned from"
    answers = served(yard, version, frame[200:])
    assert answers.probabilities is not None
    assert answers.probabilities == pytest.approx(fitted.predict_proba(frame[["c", "b", "a"]][200:]), abs=1e-5)


def test_categories_between_numbers_and_classes_of_text_are_served_as_fitted(yard: Yard) -> None:
    frame = people()
    applied(yard, "people", frame, **plain())
    encode = ColumnTransformer([("place", OneHotEncoder(), ["place"])], remainder="passthrough")
    fitted = make_pipeline(encode, LogisticRegression()).fit(frame[["age", "place", "wage"]], frame["y"])

    version = brought(yard, "people", fitted, frame)

    assert version.manifest.signature.classes == ("no", "yes")
    assert list(served(yard, version, frame).labels) == list(fitted.predict(frame[["age", "place", "wage"]]))


def test_columns_that_the_model_does_not_take_are_no_features(yard: Yard) -> None:
    frame = stream(300)
    applied(yard, "fewer", frame)

    version = brought(yard, "fewer", LogisticRegression().fit(frame[["a", "b"]], frame["y"]), frame)

    assert [column.name for column in version.manifest.signature.features] == ["a", "b"]


def test_model_without_names_of_features_takes_them_in_the_order_of_the_sample(yard: Yard) -> None:
    frame = stream(300)
    applied(yard, "nameless", frame)
    fitted = LogisticRegression().fit(frame[["a", "b", "c"]].to_numpy(), frame["y"])

    version = brought(yard, "nameless", fitted, frame)

    assert list(served(yard, version, frame).labels) == list(fitted.predict(frame[["a", "b", "c"]].to_numpy()))


def test_anomaly_detector_is_brought_without_a_gate(yard: Yard) -> None:
    frame = stream(300)
    applied(yard, "odd", frame, task="anomaly", gate=[], data={**plain()["data"], "timestamp": "at"}, train={
        "recipe": {"estimator": "isolation_forest"}
    })  # fmt: skip

    version = brought(yard, "odd", IsolationForest(n_estimators=10, random_state=0).fit(frame[["a", "b", "c"]]), frame)

    assert (version.state, version.manifest.runtimes) == ("champion", ("sklearn",))


def test_brought_model_below_the_gate_is_refused_and_says_by_how_much(yard: Yard) -> None:
    frame = stream(400)
    applied(yard, "weak", frame)
    wrong = LogisticRegression().fit(frame[["a", "b", "c"]], 1 - frame["y"])

    version = brought(yard, "weak", wrong, frame)

    assert version.state == "refused"
    assert version.verdict is not None and version.verdict.decision == "keep"
    assert "accuracy" in version.verdict.reason


FRAME = stream(200)
FITTED = LogisticRegression().fit(FRAME[["a", "b", "c"]], FRAME["y"])


@pytest.mark.parametrize(
    ("estimator", "sample", "sentence"),
    [
        (FITTED, FRAME.drop(columns="b"), "the sample has no column 'b', which the model takes; it takes a, b, c"),
        (FITTED, FRAME.drop(columns="y"), r"spec\.data\.target: the data has no column 'y'"),
        (FITTED, FRAME[:5], "5 rows are too few"),
        (FITTED, FRAME.assign(y=FRAME["y"] + 1), r"the sample has the class 2, and the model knows 0, 1"),
        (LinearRegression().fit(FRAME[["a"]], FRAME["y"]), FRAME, "takes a model with predict_proba; LinearRegression"),
        (LinearSVC().fit(FRAME[["a"]], FRAME["y"]), FRAME, "takes a model with predict_proba; LinearSVC has none"),
        (LogisticRegression().fit(FRAME[["a"]].to_numpy(), FRAME["y"]), FRAME, "takes 1 features, .* has 3: a, b, c"),
        (LogisticRegression(), FRAME, "LogisticRegression was not fitted"),
    ],
    ids=[
        "lacks a feature",
        "lacks the target",
        "few rows",
        "strange class",
        "regressor",
        "no odds",
        "width",
        "unfitted",
    ],
)
def test_sample_or_model_that_does_not_fit_is_refused(
    yard: Yard, estimator: Any, sample: pd.DataFrame, sentence: str
) -> None:
    applied(yard, "strict", FRAME)

    with pytest.raises(Invalid, match=sentence):
        brought(yard, "strict", estimator, sample)

    assert yard.registry.versions("strict") == []


def test_classifier_is_refused_where_values_are_asked_for(yard: Yard) -> None:
    applied(yard, "values", FRAME, task="regression", gate=[], **plain())

    with pytest.raises(Invalid, match=r"spec\.task is regression, and LogisticRegression tells classes apart"):
        brought(yard, "values", FITTED, FRAME)


def test_model_whose_manifest_was_not_applied_is_not_found(yard: Yard) -> None:
    with pytest.raises(NotFound, match="apply its manifest first"):
        brought(yard, "unheard", FITTED, FRAME)


def test_mlflow_that_is_away_is_said_and_nothing_is_registered(yard: Yard, tmp_path: Path) -> None:
    applied(yard, "alone", FRAME)
    skops.io.dump(FITTED, tmp_path / "model.skops")
    FRAME.to_csv(tmp_path / "sample.csv", index=False)
    tracker = MlflowTracker("http://127.0.0.1:9", run="external", patience_s=0.1)

    with pytest.raises(Unavailable, match=r"MLflow at http://127\.0\.0\.1:9 did not take the run"):
        bring(
            tmp_path / "model.skops",
            model="alone",
            data=tmp_path / "sample.csv",
            registry=yard.registry,
            tracker=tracker,
        )

    assert yard.registry.versions("alone") == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.pkl", pickle.dumps(1), "model.pkl is no .skops file: write the model with skops.io.dump; pickles are"),
        ("folder", {}, "folder is no MLflow model folder: its MLmodel cannot be read"),
        ("folder", {"MLmodel": "flavors: {onnx: {}}"}, "folder is no scikit-learn model; only these can be brought"),
        (
            "folder",
            {"MLmodel": "flavors: {sklearn: {serialization_format: cloudpickle, pickled_model: model.pkl}}"},
            "folder holds a pickle, which is refused: save it again with",
        ),
        (
            "folder",
            {"MLmodel": "flavors: {sklearn: {serialization_format: skops, pickled_model: ../model.skops}}"},
            "folder: there is no ../model.skops in it, which its MLmodel names",
        ),
    ],
    ids=["pickle", "empty folder", "another flavour", "pickle in a folder", "leads out"],
)
def test_what_holds_no_skops_file_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | dict[str, str], sentence: str
) -> None:
    (tmp_path / "model.skops").write_bytes(b"x")
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
        for file, text in content.items():
            (path / file).write_text(text)

    with pytest.raises(Invalid) as refused:
        skops_file(path)

    assert refused.value.message.startswith(sentence)


def test_program_answers_a_problem_document_and_nothing_else_on_standard_output(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"not a zip")
    (tmp_path / "sample.csv").write_text("a,y\n1,0\n")
    applied(yard, "spoken", FRAME)
    command = [sys.executable, "-m", "modelyard_trainer.bring", str(tmp_path / "model.skops"), "--model", "spoken"]
    command += ["--data", str(tmp_path / "sample.csv"), "--registry-url", yard.registry.base_url]
    command += ["--mlflow-url", yard.mlflow_url]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    problem = json.loads(done.stdout)
    assert done.returncode == 1
    assert (problem["status"], problem["type"]) == (422, "urn:modelyard:invalid")
    assert problem["detail"].startswith("model.skops: cannot be read")


def test_token_file_that_is_not_there_is_named_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match=f"the token file {tmp_path / 'token'} cannot be read"):
        MlflowTracker("http://127.0.0.1:9", run="external", token_file=tmp_path / "token")
