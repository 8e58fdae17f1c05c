"""Forests that ask their trees themselves: scikit-learn hands each tree to joblib as a task of its own.

For the few rows that are asked at a time, those tasks take ten times as long as the trees do. The trees are the same,
and so are the rows, what is refused of them, and the order in which the answers are added up: what comes of it is the
same to the last bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard_bundle.runtimes.matrices import parts

__all__ = ["ask_trees"]

_MEANS = {
    "ExtraTreesClassifier": "predict_proba",
    "ExtraTreesRegressor": "predict",
    "RandomForestClassifier": "predict_proba",
    "RandomForestRegressor": "predict",
}
"""Forests, and which of their methods is the mean of what their trees say."""
_TREES = frozenset(
    {"DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"},
)


def ask_trees(estimator: Any) -> None:
    """Have every forest within an estimator ask its trees without joblib; what is no plain forest stays as it is."""
    for part in parts(estimator):
        method = _MEANS.get(_kind(part))
        if method is not None and _is_plain(part):
            setattr(part, method, _mean_of(part, method))


def _is_plain(forest: Any) -> bool:
    """Return whether a forest is fitted, has one answer a row, and scikit-learn's own trees."""
    return getattr(forest, "n_outputs_", 0) == 1 and all(_kind(tree) in _TREES for tree in forest.estimators_)


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__.startswith(("sklearn.ensemble.", "sklearn.tree.")) else ""


def _mean_of(forest: Any, name: str) -> Callable[[Any], npt.NDArray[np.float64]]:
    # Weakly, since the forest will hold what is returned here, and has to go when its model does.
    checked = weakref.WeakMethod(forest._validate_X_predict)
    trees = [tree.tree_ for tree in forest.estimators_]
    classes = getattr(forest, "n_classes_", None)

    def mean(rows: Any) -> npt.NDArray[np.float64]:
        check = checked()
        assert check is not None  # noqa: S101  # or who asks?
        rows = check(rows)
        total = np.zeros((rows.shape[0], classes or 1))
        for tree in trees:
            total += tree.predict(rows)[:, : classes or 1]
        total /= len(trees)
        return total if classes else total[:, 0]

    mean.__name__ = name  # by which others within scikit-learn tell what they were given
    return mean
