"""Asks a version about rows between one row and its background, and its trees where it is nothing else.

It is asked in pieces, so that a prediction never waits for more than one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_bundle.runtimes.base import Predicted, positive_scores
from modelyard_bundle.signature import Columns
from modelyard_common.clock import Clock
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.domain.requests import Late
from modelyard_inference.domain.shapley import Contributions
from modelyard_inference.domain.tree_shapley import Seen, TreeModel, features_of_columns, in_trees
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = ["RESIDUE", "Asked", "Ground", "Play", "Target", "VersionTrees", "matching_trees"]

RESIDUE = 1e-4
"""Of the sum, against the spread of the answers: probabilities in 32 bits lose more than this only near 0 and 1."""
_AT_ONCE = 2048
"""Rows that the model is asked at a time: a prediction that needs the same runtime waits for these at most."""
_TINY = 1e-12
_FAR = 700.0
"""Log-odds of which the probability is 0 or 1 in 64 bits, and no more than they hold."""


@dataclass(frozen=True, slots=True)
class VersionTrees:
    """The trees of a version, which say what it answers.

    Attributes:
        seen: the background as they see it.
        logs: they say it in log-odds.
        largest: of the answers to the background.
    """

    model: TreeModel
    seen: Seen
    logs: bool
    largest: float

    def says(self, sums: npt.NDArray[np.float64], answered: npt.NDArray[np.float64]) -> bool:
        """Return whether sums of the trees mean these answers. Probabilities are compared, since of one near 1 its 32
        bits do not tell the log-odds."""
        said = 1 / (1 + np.exp(-np.clip(sums, -_FAR, _FAR))) if self.logs else sums
        return bool(np.abs(said - answered).max() <= RESIDUE * max(self.largest, float(np.abs(answered).max())))


@dataclass(slots=True)
class Ground:
    """What a version is explained against.

    Attributes:
        trees: None also where nobody has looked for trees yet.
    """

    background: Columns
    rows: int
    estimator: str
    folder: Path
    trees: VersionTrees | None = None
    looked: bool = False


@dataclass(slots=True)
class Asked:
    """How much was asked, and until when it may be."""

    clock: Clock
    deadline: float
    rows: int = 0

    def more(self, rows: int) -> None:
        """Count rows. Raise Late after the deadline: nobody waits for the answer any more."""
        if self.clock.monotonic() > self.deadline:
            raise Late("it was not explained within the deadline")
        self.rows += rows


@dataclass(frozen=True, slots=True)
class Target:
    """What is explained of an answer.

    Attributes:
        label: a class; None where it is a value or a score.
        place: its column among the probabilities; None for the value.
    """

    label: Any
    place: int | None

    @classmethod
    def of(cls, signature: Signature, predicted: Predicted, row: int) -> Target:
        """Return the positive class where the signature names one, else the class that was predicted."""
        if signature.task != "classification" or predicted.probabilities is None or not signature.classes:
            return cls(None, None)
        if signature.positive_class in signature.classes:
            return cls(signature.positive_class, signature.classes.index(signature.positive_class))
        place = int(np.argmax(predicted.probabilities[row]))
        return cls(signature.classes[place], place)

    def read(self, signature: Signature, predicted: Predicted) -> npt.NDArray[np.float64]:
        """Return what is explained of answers."""
        if self.place is not None and predicted.probabilities is not None:
            return predicted.probabilities[:, self.place].astype(np.float64)
        scores = positive_scores(signature, predicted)
        return np.asarray(predicted.labels if scores is None else scores, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Play:
    """Asks the model about rows between one row and the background."""

    loaded: LoadedVersion
    columns: Columns
    row: int
    ground: Ground
    target: Target
    asked: Asked
    logs: bool = False

    def in_log_odds(self, logs: bool) -> Play:
        """Return the same in log-odds instead of probabilities."""
        return Play(self.loaded, self.columns, self.row, self.ground, self.target, self.asked, logs)

    def __call__(self, taken: npt.NDArray[np.bool_], background: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the answers. Raise Late after the deadline."""
        parts = [
            self._asked_for(taken[start : start + _AT_ONCE], background[start : start + _AT_ONCE])
            for start in range(0, len(background), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def in_trees(self, trees: VersionTrees) -> Contributions | None:
        """Return the contributions by trees; None where a column that they see was made of several features, or they
        are not what this row is answered by."""
        features, rows = len(self.loaded.signature.features), self.ground.rows
        taken = np.repeat(np.eye(features, dtype=bool), rows, axis=0)
        swapped = self._seen(trees, taken, np.tile(np.arange(rows), features)).reshape(features, rows, -1)
        [own] = self._seen(trees, np.ones((1, features), bool), np.zeros(1, np.intp))
        of_columns = features_of_columns(own, trees.seen, swapped)
        if of_columns is None:
            return None
        place = self.target.place or 0
        found = in_trees(
            trees.model.trees, own, trees.seen, of_columns, features, place, between=lambda: self.asked.more(0)
        )
        answered = self(np.ones((1, features), bool), np.zeros(1, np.intp))
        return found if trees.says(np.array([found.answer]), answered) else None

    def _seen(self, trees: VersionTrees, taken: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp]) -> Seen:
        """Return rows in between as the trees see them."""
        parts = []
        for start in range(0, len(rows), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            self.asked.more(len(rows[piece]))
            parts.append(trees.model.see(self._between(taken[piece], rows[piece])))
        return np.concatenate(parts)

    def _between(self, taken: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp]) -> Columns:
        between: dict[str, npt.NDArray[Any]] = {}
        for place, column in enumerate(self.loaded.signature.features):
            values = self.ground.background[column.name][rows]
            values[taken[:, place]] = self.columns[column.name][self.row]
            between[column.name] = values
        return between

    def _asked_for(self, taken: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        self.asked.more(len(rows))
        signature = self.loaded.signature
        answers = self.target.read(signature, self.loaded.runtime.predict(self._between(taken, rows)))
        if not self.logs:
            return answers
        chances = np.clip(answers, _TINY, 1 - _TINY)
        return np.asarray(np.log(chances) - np.log1p(-chances))


def matching_trees(model: TreeModel | None, play: Play) -> VersionTrees | None:
    """Return the trees of a version, if what they say of the background is what it answers."""
    if model is None:
        return None
    ground = play.ground
    seen = model.see(ground.background)
    sums = model.trees.answers(seen)[:, play.target.place or 0]
    answered = play(np.zeros((ground.rows, len(play.loaded.signature.features)), bool), np.arange(ground.rows))
    candidates = [
        VersionTrees(model, seen, logs, float(np.abs(answered).max()))
        for logs in ((False,) if play.target.place is None else (False, True))
    ]
    return next((trees for trees in candidates if trees.says(sums, answered)), None)
