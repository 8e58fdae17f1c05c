"""What a model said, checked and named: a runtime that answers nonsense counts as failed."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from modelyard_bundle.runtimes.base import Predicted, positive_scores
from modelyard_contracts.bundle_v1 import Signature

__all__ = ["Answers", "BadAnswer", "answers_of"]


class BadAnswer(Exception):
    """The runtime answered with something that is no answer."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers for n rows, as plain values.

    Attributes:
        labels: labels of the signature, or numbers; length n.
        probabilities: n lists in the order of the classes laid end to end; None unless it is a classifier.
        width: length of each of them.
        scores: what is watched, length n: probability of the positive class, or the anomaly score.
    """

    labels: list[Any]
    probabilities: list[float] | None = None
    width: int = 0
    scores: list[float] | None = None


def answers_of(signature: Signature, rows: int, predicted: Predicted) -> Answers:
    """Return a runtime's answers for that many rows.

    Raises:
        BadAnswer: wrong number of rows or classes, or numbers that are not finite. Never tells values.
    """
    labels = predicted.labels.tolist()
    if len(labels) != rows:
        raise BadAnswer(f"{len(labels)} answers for {rows} rows")
    if signature.task == "regression":
        if not np.isfinite(predicted.labels.astype(np.float64, copy=False)).all():
            raise BadAnswer("an answer is not a finite number")
        return Answers(labels)
    probabilities = predicted.probabilities
    if probabilities is None:
        return Answers(_named(signature, labels))
    if probabilities.ndim != 2 or probabilities.shape[0] != rows:
        raise BadAnswer("the probabilities do not fit the rows")
    if signature.classes and signature.task == "classification" and probabilities.shape[1] != len(signature.classes):
        raise BadAnswer(f"{probabilities.shape[1]} probabilities a row for {len(signature.classes)} classes")
    chances: list[float] = probabilities.ravel().tolist()
    if not isfinite(sum(chances)):
        raise BadAnswer("a probability is not a finite number")
    scores = positive_scores(signature, predicted)
    return Answers(
        labels=_named(signature, labels),
        probabilities=chances if signature.task == "classification" else None,
        width=probabilities.shape[1],
        scores=None if scores is None else scores.tolist(),
    )


def _named(signature: Signature, labels: list[Any]) -> list[Any]:
    """Return labels as the signature writes them: a runtime may say 1 or 1.0 where the class is true."""
    if not signature.classes:
        return labels
    classes = {value: value for value in signature.classes}
    return [classes.get(label, label) for label in labels]
