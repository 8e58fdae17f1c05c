"""What a model said, checked and named: a runtime that answers nonsense counts as failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from modelyard_bundle.runtimes.base import Predicted, watched_column
from modelyard_contracts.bundle_v1 import Signature

__all__ = ["AnswerReader", "AnswerTable", "Answers", "BadAnswer"]


_MANY = 128
"""Rows from which on numpy adds numbers up quicker than Python does."""


class BadAnswer(Exception):
    """The runtime answered with something that is no answer.

    Attributes:
        of_some: for some of the rows; others may have their answers.
    """

    def __init__(self, message: str, *, of_some: bool = False) -> None:
        super().__init__(message)
        self.of_some = of_some


class Answers(msgspec.Struct, frozen=True):
    """The answers for n rows, as plain values.

    Attributes:
        labels: labels of the signature, or numbers; length n.
        probabilities: float32, of each row in the order of the classes, end to end; None unless it is a classifier.
        width: how many a row has.
        scores: what is watched, length n: probability of the positive class, or the anomaly score.
    """

    labels: list[Any]
    probabilities: npt.NDArray[np.float32] | None = None
    width: int = 0
    scores: list[float] | None = None


class AnswerTable(msgspec.Struct, frozen=True):
    """The answers to several requests, end to end: a collection of ``Answers`` for who needs those of each.

    Attributes:
        counts: how many rows each has.
        labels, probabilities, width, scores: as ``Answers`` has them, of all.
    """

    counts: Sequence[int]
    labels: list[Any]
    probabilities: npt.NDArray[np.float32] | None = None
    width: int = 0
    scores: list[float] | None = None

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self.counts)

    def __iter__(self) -> Iterator[Answers]:
        """Yield the answers to each."""
        labels, chances, width, scores = self.labels, self.probabilities, self.width, self.scores
        if len(self.counts) == 1:
            yield Answers(labels, chances, width, scores)
            return
        for count, end in _ends(self.counts):
            start = end - count
            yield Answers(
                labels[start:end],
                None if chances is None else chances[start * width : end * width],
                width,
                None if scores is None else scores[start:end],
            )


class AnswerReader:
    """Reads what a runtime says, for one signature.

    Args:
        signature: of the version that answers.
    """

    def __init__(self, signature: Signature) -> None:
        self._is_regression = signature.task == "regression"
        self._is_classification = signature.task == "classification"
        # A runtime may say 1 or 1.0 where the class is true. Where all classes are integers, integers need no look.
        self._classes = {value: value for value in signature.classes}
        self._only_integers = all(type(value) is int for value in signature.classes)
        self._known = frozenset(signature.classes)
        self._width = len(signature.classes) if signature.classes and self._is_classification else None
        self._watched = watched_column(signature)

    def one(self, rows: int, predicted: Predicted) -> Answers:
        """Return the answers for one request.

        Raises:
            BadAnswer: wrong number of rows or classes, or numbers that are not finite. Never tells values.
        """
        (answers,) = self.table([rows], predicted)
        return answers

    def split(self, counts: Sequence[int], predicted: Predicted) -> list[Answers | BadAnswer]:
        """Return the answers for the rows of several requests, to each its own.

        A number that is not finite, or a label that is no class, is the failure of that request alone.

        Args:
            counts: how many rows each has, in the order in which they lie in the answer.

        Raises:
            BadAnswer: wrong number of rows or classes. Never tells values.
        """
        try:
            return list(self.table(counts, predicted))
        except BadAnswer as exc:
            if not exc.of_some:
                raise
            if len(counts) == 1:
                return [exc]
        labels, chances = predicted.labels, predicted.probabilities
        found: list[Answers | BadAnswer] = []
        for count, end in _ends(counts):
            part = slice(end - count, end)
            found += self.split([count], Predicted(labels[part], None if chances is None else chances[part]))
        return found

    def table(self, counts: Sequence[int], predicted: Predicted) -> AnswerTable:
        """Return the same as one table.

        Raises:
            BadAnswer: any of them is none. Never tells values.
        """
        labels: list[Any] = predicted.labels.tolist()
        rows = sum(counts)
        if len(labels) != rows:
            raise BadAnswer(f"{len(labels)} answers for {rows} rows")
        if self._is_regression:
            if not all(map(isfinite, labels)):
                raise _not_finite()
            return AnswerTable(counts, labels)
        chances = self._chances(rows, predicted)
        if self._classes:
            try:
                labels = self._named(labels, predicted.labels.dtype.kind)
            except (KeyError, TypeError):  # the latter of one that cannot be looked up, such as a list
                raise BadAnswer("a label is no class of the signature", of_some=True) from None
        if chances is None:
            return AnswerTable(counts, labels)
        flat, width = chances.ravel(), chances.shape[1]
        if rows < _MANY:
            plainly: list[float] = flat.tolist()
            total, scores = sum(plainly), plainly[self._watched % width :: width]
        else:
            total, scores = float(np.add.reduce(flat, dtype=np.float64)), chances[:, self._watched].tolist()
        if not isfinite(total):  # numbers of 32 bits are too few and too small for a sum that is none of theirs
            raise _not_finite()
        return AnswerTable(counts, labels, flat if self._is_classification else None, width, scores)

    def _named(self, labels: list[Any], kind: str) -> list[Any]:
        """Return labels as the classes that they stand for. Raise KeyError or TypeError unless all are classes."""
        if self._only_integers and kind == "i":
            if not self._known.issuperset(labels):
                raise KeyError
            return labels
        return list(map(self._classes.__getitem__, labels))

    def _chances(self, rows: int, predicted: Predicted) -> npt.NDArray[np.float32] | None:
        """Return all probabilities, or the anomaly scores, shape (rows, width); None where there are none."""
        probabilities = predicted.probabilities
        if probabilities is None:
            return None
        if probabilities.ndim != 2 or probabilities.shape[0] != rows:
            raise BadAnswer("the probabilities do not fit the rows")
        width = probabilities.shape[1]
        if width != (self._width or width) or not width:
            raise BadAnswer(f"{width} probabilities a row for {self._width or 'some'} classes")
        return probabilities


def _ends(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return how many rows each has, and where they end."""
    return zip(counts, accumulate(counts), strict=True)


def _not_finite() -> BadAnswer:
    return BadAnswer("an answer or a probability is not a finite number", of_some=True)
