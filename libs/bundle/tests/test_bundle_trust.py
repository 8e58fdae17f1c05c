"""Nothing that a skops file says is believed: foreign types are refused, and trees that would crash the process too."""

from __future__ import annotations

import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from bundle_makers import MIXED, NUMBERS, bundle, columns, mixed_pipeline, signature
from modelyard_bundle.runtimes.sklearn import SKOPS_FILE, SklearnRuntime, as_frame, load_estimator, tree_nodes
from modelyard_common.errors import Invalid
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

FAR = 900_000
"""Far enough outside of any array to leave the process's memory."""


def fitted(model: Any) -> Any:
    """Return the model, fitted on two numbers, or on the mixed columns when it is a pipeline."""
    features = MIXED if hasattr(model, "steps") and "prepare" in model.named_steps else NUMBERS
    sample = columns(features)
    return model.fit(as_frame(signature(features=features), sample), (next(iter(sample.values())) > 0).astype(int))


def stored(model: Any, folder: Path) -> Path:
    path = folder / SKOPS_FILE
    skops.io.dump(model, path)
    return path


SOUND = [
    LogisticRegression(),
    DecisionTreeClassifier(random_state=0),
    DecisionTreeRegressor(random_state=0),
    RandomForestClassifier(5, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, early_stopping=False),
    HistGradientBoostingRegressor(max_iter=3, early_stopping=False),
    IsolationForest(n_estimators=5, max_features=0.5, random_state=0),
    make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
    mixed_pipeline(RandomForestClassifier(5, random_state=0)),
]


@pytest.mark.parametrize("model", SOUND, ids=lambda model: type(model).__name__)
def test_what_recipes_make_is_trusted_and_answers_the_same(model: Any, tmp_path: Path) -> None:
    made = fitted(model)
    again = load_estimator(stored(made, tmp_path))

    features = MIXED if made.n_features_in_ == 4 else NUMBERS
    frame = as_frame(signature(features=features), columns(features, seed=9))
    assert (again.predict(frame) == made.predict(frame)).all()
    assert tree_nodes(again) == tree_nodes(made)


class Evil:
    """Would run a command when a pickle of it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('owned').touch()",))


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(FunctionTransformer(exec), LogisticRegression()),
        make_pipeline(FunctionTransformer(subprocess.getoutput), LogisticRegression()),
        make_pipeline(Evil()),
    ],
    ids=["exec", "a command", "a foreign class"],
)
def test_a_skops_file_with_a_type_that_is_not_ours_is_refused_by_name(model: Any, tmp_path: Path) -> None:
    path = stored(model, tmp_path)

    with pytest.raises(Invalid, match=r"model\.skops: holds the type \S+, which is not on the list of trusted types"):
        load_estimator(path)


def test_a_pickle_under_the_name_of_a_skops_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / SKOPS_FILE).write_bytes(pickle.dumps(Evil()))

    with pytest.raises(Invalid, match=r"model\.skops: cannot be read"):
        load_estimator(tmp_path / SKOPS_FILE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and no more"], ids=["none", "empty", "half a zip"])
def test_a_file_that_is_no_skops_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / SKOPS_FILE).write_bytes(content)

    with pytest.raises(Invalid, match=r"model\.skops: cannot be read"):
        load_estimator(tmp_path / SKOPS_FILE)


def test_a_zip_without_a_schema_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / SKOPS_FILE, "w") as archive:
        archive.writestr("a", b"b")

    with pytest.raises(Invalid, match=r"model\.skops: cannot be read"):
        load_estimator(tmp_path / SKOPS_FILE)


def tree_of(model: Any) -> Any:
    """Return the first native tree of a model."""
    model = model.steps[-1][1] if hasattr(model, "steps") else model
    if hasattr(model, "_predictors"):
        return model._predictors[0][0]
    return model.tree_ if hasattr(model, "tree_") else np.ravel(model.estimators_)[0].tree_


def set_field(tree: Any, name: str, value: int) -> None:
    """Change a field of the root; the root of these trees asks a question."""
    if hasattr(tree, "nodes"):
        tree.nodes[{"children_left": "left", "children_right": "right", "feature": "feature_idx"}[name]][0] = value
    else:
        getattr(tree, name)[0] = value


TREES = [
    DecisionTreeClassifier(max_depth=3, random_state=0),
    RandomForestClassifier(2, max_depth=3, random_state=0),
    GradientBoostingClassifier(n_estimators=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=2, early_stopping=False),
    mixed_pipeline(HistGradientBoostingClassifier(max_iter=2, early_stopping=False)),
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("children_left", FAR),
        ("children_right", FAR),
        ("children_left", 0),
        ("feature", FAR),
        ("feature", 6),
    ],
    ids=["left leads out", "right leads out", "a circle", "feature far out", "feature just out"],
)
@pytest.mark.parametrize("model", TREES, ids=lambda model: type(model).__name__)
def test_a_tampered_tree_is_refused(model: Any, field: str, value: int, tmp_path: Path) -> None:
    made = fitted(model)
    set_field(tree_of(made), field, value)
    path = stored(made, tmp_path)

    with pytest.raises(Invalid, match="a tree in it leads out of its own bounds; the file is damaged or forged"):
        load_estimator(path)


@pytest.mark.parametrize("value", [-7, -2], ids=["before the row", "the mark of a leaf"])
def test_a_negative_feature_is_refused(value: int, tmp_path: Path) -> None:
    made = fitted(DecisionTreeClassifier(max_depth=3, random_state=0))
    set_field(tree_of(made), "feature", value)

    with pytest.raises(Invalid, match="leads out of its own bounds"):
        load_estimator(stored(made, tmp_path))


def test_a_category_that_has_no_bitset_is_refused(tmp_path: Path) -> None:
    made = fitted(HistGradientBoostingClassifier(max_iter=2, early_stopping=False))
    tree_of(made).nodes["is_categorical"][0] = 1
    tree_of(made).nodes["bitset_idx"][0] = 10_000

    with pytest.raises(Invalid, match="leads out of its own bounds"):
        load_estimator(stored(made, tmp_path))


def a_forest_without_width(model: Any) -> Any:
    """Return a model that would not check how wide rows are, with a tree that reads beyond them."""
    made = fitted(model)
    owner = made.steps[-1][1] if hasattr(made, "steps") else made
    set_field(tree_of(made), "feature", FAR)
    parts = np.ravel(owner.estimators_) if hasattr(owner, "estimators_") else ()
    for part in (owner, *parts):
        vars(part).pop("n_features_in_", None)
    return made


@pytest.mark.parametrize("model", TREES, ids=lambda model: type(model).__name__)
def test_a_model_that_would_skip_the_check_of_its_width_is_refused(model: Any, tmp_path: Path) -> None:
    path = stored(a_forest_without_width(model), tmp_path)

    with pytest.raises(Invalid, match="leads out of its own bounds"):
        load_estimator(path)


def test_a_model_of_another_width_than_the_signature_is_refused(tmp_path: Path) -> None:
    stored(fitted(LogisticRegression()), tmp_path)

    with pytest.raises(Invalid, match=r"model\.skops: takes 2 features, and the signature has 4"):
        SklearnRuntime(tmp_path, signature(features=MIXED))


def test_packing_refuses_what_could_not_be_loaded_again(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(exec), LogisticRegression())

    with pytest.raises(Invalid, match="not on the list of trusted types"):
        bundle(tmp_path / "b", model, signature(features=NUMBERS), columns(NUMBERS))
