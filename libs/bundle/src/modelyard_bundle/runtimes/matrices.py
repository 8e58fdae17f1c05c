"""When scikit-learn may be asked less: a matrix instead of a data frame, and once instead of twice.

A frame costs a small model more than its answer does, in making it and in each look at its names; and most classifiers
compute the same for ``predict`` as for ``predict_proba``. Both give what the long way gives, to the last bit; what is
not known to do so goes the long way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.signature import Columns, matrix_of, numeric_features

__all__ = ["MatrixInput", "labels_of", "outliers_of", "parts", "run_alone"]

_NAMES = "feature_names_in_"
_CLEAR = 1e-6
"""Chances that lie closer to each other might have been ranked otherwise before they were rounded."""
_RANKED_BY_CHANCE = frozenset(
    {
        "DecisionTreeClassifier",
        "ExtraTreesClassifier",
        "GaussianNB",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LinearDiscriminantAnalysis",
        "LogisticRegression",
        "QuadraticDiscriminantAnalysis",
        "RandomForestClassifier",
    }
)
"""Classifiers whose ``predict`` is the class of the highest chance. ``SVC``, for one, is none: its chances are fitted
apart from its decisions."""


class MatrixInput:
    """Makes the matrix that an estimator takes in place of a frame.

    Args:
        estimator: takes matrices from here on, and no frames.
    """

    def __init__(self, estimator: Any, signature: Signature) -> None:
        numeric = numeric_features(signature)
        self._numeric = numeric
        order = [numeric.index(str(name)) for name in getattr(estimator, _NAMES, numeric)]
        self._order = None if order == list(range(len(numeric))) else order
        # It would warn of rows without names with every request.
        for part in parts(estimator):
            vars(part).pop(_NAMES, None)

    @staticmethod
    def fits(estimator: Any, signature: Signature) -> bool:
        """Return whether an estimator gives the same for a matrix as for a frame: all is numbers, taken by place."""
        numeric = len(numeric_features(signature)) == len(signature.features)
        return numeric and all(_takes_places(part) for part in parts(estimator))

    def rows(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return checked columns as rows, float32, shape (rows, features).

        They lie in memory as those of a frame do, so that sums are done in the same order.
        """
        numbers = matrix_of(columns, self._numeric)
        return np.asfortranarray(numbers if self._order is None else numbers[:, self._order])


def labels_of(estimator: Any, rows: Any, chances: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what ``predict`` gives for rows, given what ``predict_proba`` gave for them.

    Args:
        chances: shape (rows, classes).
    """
    if _last(estimator)[1] not in _RANKED_BY_CHANCE or chances.ndim != 2 or chances.shape[1] < 2:
        return np.asarray(estimator.predict(rows))
    if chances.shape[1] == 2:
        clear = np.abs(chances[:, 1] - chances[:, 0]) > _CLEAR
    else:
        best = np.partition(chances, -2, axis=1)
        clear = best[:, -1] - best[:, -2] > _CLEAR
    if clear.all():
        labels: npt.NDArray[Any] = estimator.classes_.take(chances.argmax(axis=1))
        return labels
    return np.asarray(estimator.predict(rows))


def outliers_of(estimator: Any, rows: Any, scores: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for which rows ``predict`` gives -1, given what ``score_samples`` gave for them."""
    last, kind = _last(estimator)
    found: npt.NDArray[np.bool_]
    found = scores - last.offset_ < 0 if kind == "IsolationForest" else np.asarray(estimator.predict(rows)) == -1
    return found


def run_alone(estimator: Any) -> None:
    """Have every part of an estimator run in the thread that asks it.

    Several are asked side by side, each about few rows: handing those to a pool of threads costs more than it buys, and
    the pool would take the cores of the others.
    """
    for part in parts(estimator):
        if vars(part).get("n_jobs") is not None:
            part.n_jobs = None


def _last(estimator: Any) -> tuple[Any, str]:
    """Return what answers at the end of a pipeline, and what it is if it is scikit-learn's own."""
    while type(estimator).__name__ == "Pipeline":
        estimator = estimator.steps[-1][1]
    kind = type(estimator)
    return estimator, kind.__name__ if kind.__module__.startswith("sklearn.") else ""


def _takes_places(part: Any) -> bool:
    kind = type(part)
    if not kind.__module__.startswith("sklearn.") or kind.__name__ == "FunctionTransformer":
        return False
    if vars(part).get("_sklearn_output_config", {}).get("transform") not in (None, "default"):
        return False
    if vars(part).get("_preprocessor") is not None:  # of gradient boosting, whose categories come from the frame
        return False
    if kind.__name__ == "ColumnTransformer":
        return all(_are_places(entry[2]) for entry in (*part.transformers, *part.transformers_))
    return True


def _are_places(columns: Any) -> bool:
    if isinstance(columns, slice):
        return all(end is None or isinstance(end, int) for end in (columns.start, columns.stop))
    if isinstance(columns, str) or callable(columns):
        return False
    chosen = np.asarray(list(columns) if isinstance(columns, Iterable) else columns)
    return chosen.size == 0 or chosen.dtype.kind in "iub"


def parts(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield every estimator within an estimator, itself included."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, str | bytes | int | float | bool | type(None)):
        return
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set):
        inner = value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        inner = value.ravel()
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        if hasattr(value, "get_params"):
            yield value
        inner = vars(value).values()
    for part in inner:
        yield from parts(part, seen)
