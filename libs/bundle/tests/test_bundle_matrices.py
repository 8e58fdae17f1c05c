"""The short way to ask scikit-learn gives what the long way gives, to the last bit; and is taken only where it does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from bundle_makers import MIXED, columns, mixed_pipeline, signature
from modelyard_bundle.runtimes.matrices import MatrixInput, labels_of
from modelyard_bundle.runtimes.sklearn import SKOPS_FILE, SklearnRuntime, as_frame, load_estimator
from modelyard_bundle.signature import Columns, Table
from modelyard_contracts.bundle_v1 import Column, Signature
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.covariance import EllipticEnvelope
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

FEATURES = tuple(Column(name=name, type="number") for name in "abcde")
CLASSIFIERS = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "recipe": Pipeline(
        [
            (
                "prepare",
                ColumnTransformer([("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1, 2, 3, 4])]),
            ),
            ("model", LogisticRegression()),
        ]
    ),
    "stump": DecisionTreeClassifier(max_depth=1),
    "forest": RandomForestClassifier(10, random_state=0, n_jobs=2),
    "few trees that often tie": RandomForestClassifier(2, random_state=0),
    "extra trees": ExtraTreesClassifier(10, random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=10, early_stopping=False),
    "naive": GaussianNB(),
    "linear discriminant": LinearDiscriminantAnalysis(),
    "quadratic discriminant": QuadraticDiscriminantAnalysis(),
    "neighbours": KNeighborsClassifier(4, algorithm="brute"),
}


def sample(rows: int = 200, seed: int = 1) -> Columns:
    found = columns(FEATURES, rows=rows, seed=seed)
    # Coarse, so that many rows are on the border between two classes.
    return {name: np.round(values * 2) / 2 for name, values in found.items()}


def stored(estimator: Any, folder: Path) -> Path:
    skops.io.dump(estimator, folder / SKOPS_FILE)
    return folder


def both(estimator: Any, shape: Signature, folder: Path, asked: Columns) -> tuple[SklearnRuntime, Any, Any]:
    """Return the runtime of an estimator, the estimator itself, and rows as its frame."""
    stored(estimator, folder)
    return SklearnRuntime(folder, shape), load_estimator(folder / SKOPS_FILE), as_frame(shape, asked)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_that_is_asked_once_for_a_matrix_answers_as_one_asked_twice_for_a_frame(
    name: str, classes: int, tmp_path: Path
) -> None:
    shape = signature(features=FEATURES, classes=tuple(range(classes)), positive_class=None)
    learnt = sample()
    target = np.digitize(learnt["a"] + learnt["b"], [0.1, 1.1][: classes - 1])
    asked = sample(rows=1000, seed=2)
    runtime, estimator, frame = both(CLASSIFIERS[name].fit(as_frame(shape, learnt), target), shape, tmp_path, asked)

    answer = runtime.predict(asked)

    assert runtime._matrix is not None
    assert answer.labels.tolist() == estimator.predict(frame).tolist()
    assert answer.labels.dtype == estimator.predict(frame).dtype
    assert answer.probabilities is not None
    np.testing.assert_array_equal(answer.probabilities, estimator.predict_proba(frame).astype(np.float32))


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), RandomForestRegressor(10, random_state=0), HistGradientBoostingRegressor(max_iter=10)],
    ids=["linear", "forest", "histograms"],
)
def test_a_regressor_gives_the_same_number_for_a_matrix(estimator: Any, tmp_path: Path) -> None:
    shape, learnt, asked = signature("regression", FEATURES), sample(), sample(rows=1000, seed=2)
    fitted = estimator.fit(as_frame(shape, learnt), learnt["a"] * 3 + learnt["c"])
    runtime, again, frame = both(fitted, shape, tmp_path, asked)

    assert runtime._matrix is not None
    assert runtime.predict(asked).labels.tolist() == again.predict(frame).tolist()


@pytest.mark.parametrize(
    "estimator",
    [
        IsolationForest(n_estimators=20, contamination=0.3, random_state=0),
        make_pipeline(StandardScaler(), IsolationForest(n_estimators=20, contamination=0.3, random_state=0)),
        EllipticEnvelope(contamination=0.3, random_state=0),
    ],
    ids=["forest", "pipeline", "envelope"],
)
def test_a_detector_finds_the_same_outliers_by_its_scores(estimator: Any, tmp_path: Path) -> None:
    shape, learnt, asked = signature("anomaly", FEATURES), sample(), sample(rows=1000, seed=2)
    runtime, again, frame = both(estimator.fit(as_frame(shape, learnt)), shape, tmp_path, asked)

    answer = runtime.predict(asked)

    assert answer.labels.tolist() == (again.predict(frame) == -1).tolist()
    assert 0 < answer.labels.sum() < 1000
    assert answer.probabilities is not None
    np.testing.assert_array_equal(answer.probabilities[:, 0], -again.score_samples(frame).astype(np.float32))


def test_columns_reach_an_estimator_in_the_order_it_learnt_them_in(tmp_path: Path) -> None:
    shape, learnt, asked = signature(features=FEATURES), sample(), sample(seed=2)
    frame = as_frame(shape, learnt)[["c", "a", "e", "b", "d"]]
    fitted = LogisticRegression().fit(frame, (learnt["a"] > 0).astype(int))
    runtime = SklearnRuntime(stored(fitted, tmp_path), shape)
    numbers = np.stack([asked[column.name] for column in FEATURES], axis=1)

    by_columns = runtime.predict(asked)
    by_table = runtime.predict(Table([column.name for column in FEATURES], numbers, {}))

    assert by_columns.labels.tolist() == (asked["a"] > 0).astype(int).tolist() == by_table.labels.tolist()


def test_a_model_without_names_takes_the_order_of_the_signature(tmp_path: Path) -> None:
    shape, learnt, asked = signature(features=FEATURES), sample(), sample(seed=2)
    fitted = LogisticRegression().fit(as_frame(shape, learnt).to_numpy(), (learnt["b"] > 0).astype(int))

    answer = SklearnRuntime(stored(fitted, tmp_path), shape).predict(asked)

    assert answer.labels.tolist() == (asked["b"] > 0).astype(int).tolist()


def test_nothing_warns_of_missing_names(tmp_path: Path) -> None:
    shape, learnt = signature(features=FEATURES), sample()
    model = CLASSIFIERS["recipe"].fit(as_frame(shape, learnt), (learnt["a"] > 0).astype(int))
    runtime = SklearnRuntime(stored(model, tmp_path), shape)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(runtime.predict(learnt).labels) == 200


def by_name() -> Pipeline:
    return make_pipeline(ColumnTransformer([("some", StandardScaler(), ["a", "c"])]), LogisticRegression())


def by_selector() -> Pipeline:
    chosen = make_column_selector(pattern="a|c")
    return make_pipeline(ColumnTransformer([("some", StandardScaler(), chosen)]), LogisticRegression())


def with_frames_inside() -> Pipeline:
    return make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression())


def with_a_function() -> Pipeline:
    return make_pipeline(FunctionTransformer(np.abs), LogisticRegression())


@pytest.mark.parametrize("make", [by_name, by_selector, with_frames_inside, with_a_function])
def test_an_estimator_that_may_look_at_its_frame_gets_one(make: Any) -> None:
    shape, learnt = signature(features=FEATURES), sample()

    fitted = make().fit(as_frame(shape, learnt), (learnt["a"] > 0).astype(int))

    assert not MatrixInput.fits(fitted, shape)


def test_an_estimator_of_categories_gets_a_frame(tmp_path: Path) -> None:
    learnt = columns(MIXED)
    model = mixed_pipeline(HistGradientBoostingClassifier(max_iter=5, early_stopping=False))
    fitted = model.fit(as_frame(signature(), learnt), (learnt["load"] > 0).astype(int))
    runtime, again, frame = both(fitted, signature(), tmp_path, learnt)

    assert not MatrixInput.fits(fitted, signature())
    assert runtime.predict(learnt).labels.tolist() == again.predict(frame).tolist()


def test_a_classifier_that_ranks_otherwise_than_by_chance_is_asked_for_its_labels() -> None:
    class Contrary(LogisticRegression):
        def predict(self, rows: Any) -> Any:
            return 1 - super().predict(rows)

    learnt = sample()
    matrix = np.stack(list(learnt.values()), axis=1)
    model = Contrary().fit(matrix, (learnt["a"] > 0).astype(int))

    assert labels_of(model, matrix, model.predict_proba(matrix)).tolist() == model.predict(matrix).tolist()


def test_chances_that_hardly_differ_do_not_make_a_label() -> None:
    learnt = sample()
    matrix = np.stack(list(learnt.values()), axis=1)
    model = LogisticRegression().fit(matrix, (learnt["a"] > 0).astype(int))
    rounded = np.full((len(matrix), 2), 0.5)

    assert labels_of(model, matrix, rounded).tolist() == model.predict(matrix).tolist()


def test_a_forest_that_was_made_with_many_threads_runs_in_the_one_that_asks(tmp_path: Path) -> None:
    shape, learnt = signature(features=FEATURES), sample()
    forest = RandomForestClassifier(5, n_jobs=-1).fit(as_frame(shape, learnt), (learnt["a"] > 0).astype(int))

    runtime = SklearnRuntime(stored(make_pipeline(forest), tmp_path), shape)

    assert runtime._estimator.steps[0][1].n_jobs is None
