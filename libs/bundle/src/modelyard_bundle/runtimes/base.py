"""The port of a runtime, and what every runtime answers."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.signature import Columns

__all__ = [
    "NUMBERS_INPUT",
    "ONNX_FILE",
    "SKOPS_FILE",
    "TWIN_TOLERANCE",
    "HasRowWay",
    "Predicted",
    "Runtime",
    "positive_scores",
    "scale",
    "text_input",
    "watched_column",
]

ONNX_FILE = "model.onnx"
SKOPS_FILE = "model.skops"
"""Here, so that they can be named without the libraries that open them."""
NUMBERS_INPUT = "numbers"
"""Of a twin: all numeric features in one matrix [n, k]; each category is an input of its own, see ``text_input``."""
TWIN_TOLERANCE = 1e-4
"""How far an answer may be from the estimator's, of chances and relative of values: ONNX in 32 bits is within 1e-6 of
scikit-learn. A wrong model is off by far more, save one of values that are large beside what they differ by; a twin of
such a model is held to that as well, see ``twin``."""
_ROUNDING = 1e-12
"""How much sums of the same numbers in 64 bits differ at most, relative."""


class Predicted(NamedTuple):
    """Answers for n rows.

    Attributes:
        labels: labels or values, shape (n,).
        probabilities: shape (n, classes), float32; None unless the task is classification. For anomaly detection
            shape (n, 1): the anomaly score, higher is more anomalous.
    """

    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32] | None


class Runtime(Protocol):
    """Runs one model. Thread safe."""

    @property
    def name(self) -> str:
        """What it is called in a bundle's manifest."""

    @property
    def blocking(self) -> bool:
        """Whether a prediction may take long enough to keep an event loop from its other work."""

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked."""


@runtime_checkable
class HasRowWay(Protocol):
    """A runtime that may answer one row in another way than several."""

    @property
    def rows_alone(self) -> int:
        """How many rows to ask by themselves where its answers are checked; 0 if it has no other way for them."""


def text_input(position: int) -> str:
    """Return the name of a twin's input, [n, 1], for the category at that place among the categories."""
    return f"text_{position}"


def scale(values: npt.NDArray[np.float64]) -> float:
    """Return how far apart values usually are: differences mean something against this, not against 1.

    It is 1 where the values are the same up to rounding.
    """
    spread = float(np.std(values))
    return spread if spread > _ROUNDING * float(np.abs(values).max()) else 1.0


def watched_column(signature: Signature) -> int:
    """Return the column of the probabilities that is watched: of the positive class, else the last (-1)."""
    known = signature.positive_class in signature.classes
    return signature.classes.index(signature.positive_class) if known else -1


def positive_scores(signature: Signature, predicted: Predicted) -> npt.NDArray[np.float32] | None:
    """Return the score that is watched, shape (n,); None for values."""
    if predicted.probabilities is None:
        return None
    return predicted.probabilities[:, watched_column(signature)]
