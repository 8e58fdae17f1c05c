"""scikit-learn by skops: types come from our own list, never from the file, and trees are checked before they run.

A skops file holds no code, but native memory: a tree whose child indices lead out of its arrays crashes the
process in ``predict``. So every tree's indices are compared with its bounds at load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import SKOPS_FILE, Predicted
from modelyard_bundle.runtimes.forests import ask_trees
from modelyard_bundle.runtimes.matrices import MatrixInput, labels_of, outliers_of, run_alone
from modelyard_bundle.signature import Columns, numeric_features, text_features

__all__ = [
    "SKOPS_FILE",
    "TRUSTED_TYPES",
    "SklearnRuntime",
    "answer",
    "as_frame",
    "load_estimator",
    "model_input",
    "tree_nodes",
]

TRUSTED_TYPES = frozenset(
    {
        "numpy.dtype",
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss.loss.ExponentialLoss",
        "sklearn.compose._column_transformer._RemainderColsList",
    }
)
"""What skops does not trust by itself and our recipes need. Trees are allowed because they are checked below."""

_WIDEST = 1_000_000
"""Rows with more features than this are refused anyway; estimators name their own number."""


def load_estimator(path: Path) -> Any:
    """Return the estimator of a skops file.

    Raises:
        Invalid: a type that is not on our list, a damaged file, or a tree that leads out of its bounds.
    """
    import skops.io  # noqa: PLC0415  # heavy and optional: an ONNX-only server has no scikit-learn

    try:
        wanted = set(skops.io.get_untrusted_types(file=path))
        if foreign := wanted - TRUSTED_TYPES:
            raise Invalid(f"{path.name}: holds the type {min(foreign)}, which is not on the list of trusted types")
        estimator = skops.io.load(path, trusted=sorted(wanted))
    except Invalid:
        raise
    except Exception as exc:  # skops and zipfile raise many kinds
        raise Invalid(f"{path.name}: cannot be read ({type(exc).__name__})") from exc
    for tree, width in _trees(estimator, set(), _WIDEST):
        try:
            sound = _is_sound(tree, width)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            raise Invalid(f"{path.name}: a tree in it has not the fields of a tree; the file is forged") from exc
        if not sound:
            raise Invalid(f"{path.name}: a tree in it leads out of its own bounds; the file is damaged or forged")
    return estimator


def _trees(value: Any, seen: set[int], width: int) -> Iterator[tuple[Any, int]]:
    """Yield every native tree reachable from an estimator, with the number of features of the rows it will be given.

    Estimators check that number in Python before native code runs, and skip the check when they have none: then the
    width is 0, which no tree that asks anything fits in. Trees within trees are given the outer one's rows; what
    stands in a pipeline is given rows that are as wide as it says itself.
    """
    if id(value) in seen or isinstance(value, str | bytes | int | float | bool | type(None)):
        return
    seen.add(id(value))
    if type(value).__name__ in {"Tree", "TreePredictor"}:
        yield value, width
        return
    if isinstance(value, dict):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple | set):
        parts = value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        parts = value.ravel()
    elif hasattr(value, "__dict__"):
        width = _width_given_to(value, width)
        parts = vars(value).values()
    else:
        return
    for part in parts:
        yield from _trees(part, seen, width)


def _width_given_to(value: Any, width: int) -> int:
    """Return how wide the rows are that an object hands on, when it stands in one whose rows are this wide."""
    if type(value).__name__ == "Pipeline":
        return _WIDEST
    if not hasattr(value, "get_params"):
        return width
    own = getattr(value, "n_features_in_", None)
    return min(width, int(own)) if isinstance(own, int | np.integer) else 0


def _is_sound(tree: Any, width: int) -> bool:
    """Return whether every walk through a tree ends, within its arrays and within rows of width features.

    A child has a higher number than its parent: so there is no cycle.
    """
    if type(tree).__name__ == "Tree":
        size, left, right, features = tree.node_count, tree.children_left, tree.children_right, tree.feature
        inner = left != -1
        whole = left.size == right.size == features.size == size and tree.value.shape[0] == size
        if not whole or not bool(np.all(right[~inner] == -1)):
            return False
    else:
        table = tree.nodes
        size, inner = table.shape[0], table["is_leaf"] == 0
        left, right = table["left"].astype(np.int64), table["right"].astype(np.int64)
        features = table["feature_idx"].astype(np.int64)
        categories = table["bitset_idx"][inner & (table["is_categorical"] != 0)].astype(np.int64)
        if not bool(np.all(categories < tree.raw_left_cat_bitsets.shape[0])):
            return False
    places = np.arange(size)[inner]
    return size > 0 and bool(
        np.all((left[inner] > places) & (left[inner] < size))
        and np.all((right[inner] > places) & (right[inner] < size))
        and np.all((features[inner] >= 0) & (features[inner] < width))
    )


def tree_nodes(estimator: Any) -> int:
    """Return how many nodes the trees of an estimator have together."""
    trees = (tree for tree, _ in _trees(estimator, set(), _WIDEST))
    return sum(int(tree.node_count if type(tree).__name__ == "Tree" else len(tree.nodes)) for tree in trees)


class SklearnRuntime:
    """Runs the estimator itself, in the thread that asks."""

    name = "sklearn"
    blocking = True

    def __init__(self, folder: Path, signature: Signature) -> None:
        estimator = self._estimator = load_estimator(folder / SKOPS_FILE)
        width = getattr(estimator, "n_features_in_", len(signature.features))
        if width != len(signature.features):
            raise Invalid(f"{SKOPS_FILE}: takes {width} features, and the signature has {len(signature.features)}")
        names = {str(name) for name in getattr(estimator, "feature_names_in_", ())}
        if names and names != {column.name for column in signature.features}:
            raise Invalid(f"{SKOPS_FILE}: takes the features {', '.join(sorted(names))}, and the signature has others")
        self._signature = signature
        run_alone(estimator)
        ask_trees(estimator)
        self._matrix = MatrixInput(estimator, signature) if MatrixInput.fits(estimator, signature) else None

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked."""
        if self._matrix is None:
            return answer(self._estimator, self._signature, columns)
        return _answer(self._estimator, self._signature, self._matrix.rows(columns))


def answer(estimator: Any, signature: Signature, columns: Columns) -> Predicted:
    """Return an estimator's answers for columns that the signature has checked."""
    return _answer(estimator, signature, model_input(estimator, signature, columns))


def _answer(estimator: Any, signature: Signature, rows: Any) -> Predicted:
    if signature.task == "anomaly":
        scores = np.asarray(estimator.score_samples(rows))
        labels = outliers_of(estimator, rows, scores).astype(np.int64)
        return Predicted(labels, -scores.astype(np.float32).reshape(-1, 1))
    if signature.task == "regression":
        return Predicted(np.asarray(estimator.predict(rows), dtype=np.float64).reshape(-1), None)
    chances = np.asarray(estimator.predict_proba(rows))
    return Predicted(labels_of(estimator, rows, chances), chances.astype(np.float32))


def model_input(estimator: Any, signature: Signature, columns: Columns) -> Any:
    """Return columns as an estimator was fitted on them.

    Our own pipelines take them as ``as_frame`` gives them. One that was fitted elsewhere may have seen another order,
    and checks it by name; one that was fitted without names takes an array in the order of the signature.
    """
    frame = as_frame(signature, columns)
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return frame.to_numpy()
    return frame[list(names)] if list(names) != list(frame.columns) else frame


def as_frame(signature: Signature, columns: Columns) -> Any:
    """Return columns as the data frame that our pipelines take: numbers first, then categories."""
    import pandas as pd  # noqa: PLC0415  # optional, as above

    order = [*numeric_features(signature), *text_features(signature)]
    return pd.DataFrame({name: columns[name] for name in order})
