"""What a model said, checked and named: a runtime that answers nonsense counts as failed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from modelyard_bundle.runtimes.base import Predicted, positive_scores
from modelyard_contracts.bundle_v1 import Signature

__all__ = ["Answers", "BadAnswer", "answers_of", "split_answers"]


class BadAnswer(Exception):
    """The runtime answered with something that is no answer."""


class Answers(NamedTuple):
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
    (answers,) = split_answers(signature, [rows], predicted)
    if isinstance(answers, BadAnswer):
        raise answers
    return answers


def split_answers(signature: Signature, counts: Sequence[int], predicted: Predicted) -> list[Answers | BadAnswer]:
    """Return a runtime's answers for the rows of several requests, to each its own.

    A number that is not finite is the failure of that request alone.

    Args:
        counts: how many rows each has, in the order in which they lie in the answer.

    Raises:
        BadAnswer: wrong number of rows or classes. Never tells values.
    """
    labels = predicted.labels.tolist()
    rows = sum(counts)
    if len(labels) != rows:
        raise BadAnswer(f"{len(labels)} answers for {rows} rows")
    chances, width = _chances(signature, rows, predicted)
    scores = positive_scores(signature, predicted) if chances is not None else None
    whole = Answers(
        labels=labels if signature.task == "regression" else _named(signature, labels),
        probabilities=chances,
        width=width,
        scores=None if scores is None else scores.tolist(),
    )
    if len(counts) == 1:
        return [_checked(signature, whole)]
    parts: list[Answers | BadAnswer] = []
    start = 0
    for count in counts:
        end = start + count
        parts.append(_checked(signature, _part(whole, start, end)))
        start = end
    return parts


def _chances(signature: Signature, rows: int, predicted: Predicted) -> tuple[list[float] | None, int]:
    """Return all probabilities end to end, or the anomaly scores, and how many a row has."""
    probabilities = predicted.probabilities
    if probabilities is None or signature.task == "regression":
        return None, 0
    if probabilities.ndim != 2 or probabilities.shape[0] != rows:
        raise BadAnswer("the probabilities do not fit the rows")
    width = probabilities.shape[1]
    if signature.classes and signature.task == "classification" and width != len(signature.classes):
        raise BadAnswer(f"{width} probabilities a row for {len(signature.classes)} classes")
    return probabilities.ravel().tolist(), width


def _part(whole: Answers, start: int, end: int) -> Answers:
    labels, chances, width, scores = whole
    return Answers(
        labels[start:end],
        None if chances is None else chances[start * width : end * width],
        width,
        None if scores is None else scores[start:end],
    )


def _checked(signature: Signature, answers: Answers) -> Answers | BadAnswer:
    numbers = answers.labels if signature.task == "regression" else answers.probabilities
    if numbers is not None and not isfinite(sum(numbers)) and not all(map(isfinite, numbers)):
        return BadAnswer("an answer or a probability is not a finite number")
    if answers.probabilities is not None and signature.task != "classification":
        return answers._replace(probabilities=None)
    return answers


def _named(signature: Signature, labels: list[Any]) -> list[Any]:
    """Return labels as the signature writes them: a runtime may say 1 or 1.0 where the class is true."""
    if not signature.classes:
        return labels
    classes = {value: value for value in signature.classes}
    return [classes.get(label, label) for label in labels]
