"""Whole runs against a real MLflow and registry: what is learned, what is judged, what is handed over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.probe import replay
from modelyard_contracts.registry_v1 import PromotionRequest, VersionView
from modelyard_stats.baseline import Baseline
from sklearn.datasets import load_diabetes
from trainer_yard import EPOCH, Yard, as_labelled, policy, stream, wait_until

FRESH = {
    "metric": "accuracy",
    "against": "champion",
    "improveBy": 0.01,
    "on": {"fresh": {"rows": 300, "minRows": 200}},
}
GATE = [{"metric": "accuracy", "min": 0.6}, FRESH]


def champion_is(yard: Yard, name: str, version: VersionView) -> None:
    wait_until(lambda: getattr(yard.registry.model(name).champion, "digest", "") == version.digest)


def fetched(yard: Yard, version: VersionView, into: Path) -> Path:
    folder = yard.registry.download_bundle(version.model, version.digest, into)
    manifest = verify(folder, version.digest)
    for runtime in manifest.runtimes:
        replay(load(folder, manifest, prefer=runtime), manifest.signature, folder)
    return folder


def test_first_run_learns_the_older_rows_and_is_judged_on_the_newest(yard: Yard, tmp_path: Path) -> None:
    uri = yard.upload(stream(800), "first")
    yard.apply("first", policy(uri))
    version = yard.train("first")
    champion_is(yard, "first", version)
    lineage, evaluation = version.manifest.lineage, version.evaluation
    assert lineage.rows == 600
    assert (lineage.data_from, lineage.data_until) == (EPOCH, EPOCH + timedelta(minutes=599))
    assert f"dataset://{lineage.source}" == uri
    assert evaluation is not None
    assert (evaluation.kind, evaluation.rows) == ("test", 200)
    assert evaluation.rows_from == EPOCH + timedelta(minutes=600)
    assert [score.role for score in evaluation.scores] == ["candidate"]
    accuracy = evaluation.scores[0].metrics["accuracy"]
    assert 0.9 < accuracy.low <= accuracy.value <= accuracy.high
    assert version.manifest.runtimes == ("onnx", "sklearn")
    baseline = Baseline.from_json((fetched(yard, version, tmp_path / "b") / "baseline.json").read_bytes())
    assert [(feature.name, feature.matters) for feature in baseline.features] == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]
    assert (baseline.rows, baseline.prediction is not None and baseline.prediction.rows) == (600, 200)


def test_retraining_scores_all_that_have_not_seen_the_fresh_rows(yard: Yard) -> None:
    history = stream(800)
    yard.apply("again", policy(yard.upload(history, "again"), gate=GATE))
    first = yard.train("again")
    champion_is(yard, "again", first)

    later = stream(900, seed=2, start=EPOCH + timedelta(minutes=1000), flipped=True)
    yard.played.labelled["again"] = as_labelled(later, target="y", at="at")
    recent = policy(yard.upload(history, "again"), gate=GATE)
    recent["train"] = recent["train"] | {"learnFrom": {"recent": {"rows": 500}}}
    yard.apply("again", recent)
    second = yard.train("again", until=600)
    assert second.evaluation is not None
    assert second.evaluation.kind == "fresh"
    assert second.evaluation.rows_from == EPOCH + timedelta(minutes=1300)
    assert second.evaluation.rows_until == EPOCH + timedelta(minutes=1599)
    assert second.manifest.lineage.data_until == EPOCH + timedelta(minutes=1299)
    assert (second.manifest.lineage.rows, second.manifest.lineage.label_seq) == (500, 600)
    assert [(s.digest, s.role) for s in second.evaluation.scores] == [
        (second.digest, "candidate"),
        (first.digest, "champion"),
    ]
    champion_is(yard, "again", second)

    # The world turns back: the champion has seen up to minute 1299, and its predecessor far less.
    back = stream(400, seed=3, start=EPOCH + timedelta(minutes=2000))
    both = pd.concat([yard.played.labelled["again"], as_labelled(back, target="y", at="at", first_seq=901)])
    yard.played.labelled["again"] = both
    third = yard.train("again", until=1300)
    assert third.evaluation is not None
    scores = {score.role: score for score in third.evaluation.scores}
    assert scores["contender"].digest == first.digest
    assert scores["contender"].metrics["accuracy"].value > 0.9
    assert scores["champion"].metrics["accuracy"].value < 0.5
    assert third.verdict is not None
    assert (third.verdict.decision, third.verdict.chosen) == ("promote_predecessor", first.digest)


def test_who_has_seen_judged_rows_is_skipped_with_the_reason(yard: Yard) -> None:
    yard.apply("skip", policy(yard.upload(stream(800), "skip")))
    first = yard.train("skip")
    champion_is(yard, "skip", first)
    older = stream(700, seed=4, start=EPOCH - timedelta(minutes=1000))
    yard.apply("skip", policy(yard.upload(older, "skip")))
    second = yard.train("skip")
    assert second.evaluation is not None
    assert [score.role for score in second.evaluation.scores] == ["candidate"]
    assert "has learned from rows up to" in second.evaluation.skipped[first.digest]


def test_too_few_fresh_rows_are_insufficient_and_promote_nothing(yard: Yard) -> None:
    yard.apply("few", policy(yard.upload(stream(800), "few"), gate=GATE))
    first = yard.train("few")
    champion_is(yard, "few", first)
    later = stream(150, seed=2, start=EPOCH + timedelta(minutes=1000))
    yard.played.labelled["few"] = as_labelled(later, target="y", at="at")
    second = yard.train("few", until=150)
    assert second.evaluation is not None
    assert second.evaluation.insufficient == "150 fresh labelled rows; it takes 200"
    assert second.verdict is not None
    assert second.verdict.decision == "insufficient"
    assert getattr(yard.registry.model("few").champion, "digest", "") == first.digest


def test_no_labels_at_all_are_insufficient_too(yard: Yard) -> None:
    yard.apply("none", policy(yard.upload(stream(800), "none"), gate=GATE))
    champion_is(yard, "none", yard.train("none"))
    second = yard.train("none", until=0)
    assert second.evaluation is not None
    assert (second.evaluation.rows, second.evaluation.scores) == (0, ())
    assert second.evaluation.insufficient == "0 fresh labelled rows; it takes 200"


def test_history_alone_is_learned_from_when_the_policy_says_so(yard: Yard) -> None:
    spec = policy(yard.upload(stream(800), "history"), gate=GATE)
    spec["train"] = spec["train"] | {"learnFrom": {"feedback": False}}
    yard.apply("history", spec)
    champion_is(yard, "history", yard.train("history"))
    later = stream(900, seed=2, start=EPOCH + timedelta(minutes=1000))
    yard.played.labelled["history"] = as_labelled(later, target="y", at="at")
    second = yard.train("history", until=900)
    assert second.evaluation is not None
    assert (second.evaluation.rows, second.manifest.lineage.rows) == (300, 800)
    assert second.manifest.lineage.data_until == EPOCH + timedelta(minutes=799)


def test_diabetes_is_learned_as_a_regression_without_times(yard: Yard, tmp_path: Path) -> None:
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    spec: dict[str, Any] = {
        "task": "regression",
        "data": {"source": {"uri": yard.upload(frame, "diabetes")}, "target": "progression"},
        "train": {"recipe": {"estimator": "ridge", "params": {"alpha": 1.0}}, "seed": 7},
        "gate": [{"metric": "r2", "min": 0.3}],
    }
    yard.apply("diabetes", spec)
    version = yard.train("diabetes")
    champion_is(yard, "diabetes", version)
    assert version.evaluation is not None
    assert set(version.evaluation.scores[0].metrics) == {"rmse", "mae", "r2"}
    assert version.manifest.lineage.data_until is None
    fetched(yard, version, tmp_path / "b")
    later = frame.iloc[:100].assign(at=[EPOCH + timedelta(minutes=i) for i in range(100)])
    yard.played.labelled["diabetes"] = as_labelled(later, target="progression", at="at")
    assert yard.train("diabetes", until=100).manifest.lineage.rows == round(542 * 0.8)


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "random_forest"])
def test_categories_missing_values_and_truths_are_learned_and_served(
    yard: Yard, tmp_path: Path, estimator: str
) -> None:
    generator = np.random.default_rng(5)
    frame = stream(600)
    colours = generator.choice(["red", "green", "blue"], 600).astype(object)
    colours[::40] = None
    frame = frame.assign(
        y=np.where((frame["a"] > 0) | (colours == "red"), "yes", "no"),
        a=frame["a"].where(generator.random(600) > 0.03),
        c=frame["c"].where(generator.random(600) > 0.3),
        colour=colours,
        member=generator.random(600) > 0.5,
        age=generator.integers(18, 90, 600),
        customer=[f"c{i}" for i in range(600)],
    )
    name = f"mixed-{estimator.replace('_', '-')}"
    data = {
        "source": {"uri": yard.upload(frame, name)},
        "target": "y",
        "positiveClass": "yes",
        "timestamp": "at",
        "keys": ["customer"],
        "features": {"c": {"required": False}, "age": {"min": 0, "max": 120}},
    }
    spec = policy("", data=data, gate=[{"metric": "accuracy", "min": 0.8}])
    spec["train"]["recipe"] = {"estimator": estimator, "params": {"max_depth": 8}}
    yard.apply(name, spec)
    version = yard.train(name)
    signature = version.manifest.signature
    assert {column.name: column.type for column in signature.features} == {
        "a": "number", "b": "number", "c": "number", "member": "boolean", "age": "integer", "colour": "category",
    }  # fmt: skip
    assert (signature.classes, signature.positive_class) == (("no", "yes"), "yes")
    assert version.manifest.runtimes == ("onnx", "sklearn"), version.manifest.parity
    fetched(yard, version, tmp_path / "b")
    champion_is(yard, name, version)
    assert "colour=red" in {entry.slice for entry in version.manifest.metrics}


def test_anomalies_are_found_without_a_twin(yard: Yard, tmp_path: Path) -> None:
    frame = stream(500)
    odd = np.zeros(500, dtype="int64")
    odd[::50] = 1
    frame = frame.assign(y=odd, a=frame["a"] + 12 * odd, b=frame["b"] - 12 * odd)
    spec = policy(yard.upload(frame, "odd"), task="anomaly", gate=[{"metric": "roc_auc", "min": 0.9}])
    spec["train"]["recipe"] = {"estimator": "isolation_forest", "params": {"contamination": 0.02}}
    yard.apply("odd", spec)
    version = yard.train("odd")
    assert version.manifest.runtimes == ("sklearn",)
    fetched(yard, version, tmp_path / "b")
    champion_is(yard, "odd", version)


def test_labels_of_a_new_class_are_learned(yard: Yard, tmp_path: Path) -> None:
    frame = stream(500)
    spec = policy(yard.upload(frame.assign(y=np.where(frame["y"] == 1, "up", "down")), "classes"), gate=[])
    spec["data"] = spec["data"] | {"positiveClass": "up"}
    yard.apply("classes", spec)
    champion_is(yard, "classes", yard.train("classes"))
    later = stream(300, seed=6, start=EPOCH + timedelta(minutes=900))
    labels = np.where(later["y"] == 1, "up", np.where(later["c"] > 0, "flat", "down"))
    yard.played.labelled["classes"] = as_labelled(later.assign(y=labels), target="y", at="at")
    version = yard.train("classes", until=300)
    assert version.manifest.signature.classes == ("down", "flat", "up")
    fetched(yard, version, tmp_path / "b")


def test_one_wrong_labelled_row_does_not_stop_the_training(yard: Yard) -> None:
    spec = policy(yard.upload(stream(800), "wrong"), gate=GATE)
    spec["data"] = spec["data"] | {"features": {"a": {"min": -100}}}
    yard.apply("wrong", spec)
    champion_is(yard, "wrong", yard.train("wrong"))
    later = stream(500, seed=2, start=EPOCH + timedelta(minutes=1000)).astype({"b": object})
    later.loc[3, "a"], later.loc[4, "a"] = -1000.0, np.nan
    texts = as_labelled(later, target="y", at="at").astype({"b": str})
    texts.loc[5, "b"] = "oops"
    yard.played.labelled["wrong"] = texts
    version = yard.train("wrong", until=500)
    assert version.manifest.lineage.rows == 800 + 500 - 300 - 3


def test_a_predecessor_comes_back_by_hand_and_is_scored_as_champion(yard: Yard) -> None:
    yard.apply("hand", policy(yard.upload(stream(800), "hand"), gate=GATE))
    first = yard.train("hand")
    champion_is(yard, "hand", first)
    later = stream(900, seed=2, start=EPOCH + timedelta(minutes=1000))
    yard.played.labelled["hand"] = as_labelled(later, target="y", at="at")
    second = yard.train("hand", until=400)
    yard.registry.promote("hand", PromotionRequest(version=second.digest, direct=True))
    champion_is(yard, "hand", second)
    third = yard.train("hand", until=900)
    assert third.evaluation is not None
    assert {score.digest: score.role for score in third.evaluation.scores} == {
        third.digest: "candidate",
        second.digest: "champion",
        first.digest: "contender",
    }
