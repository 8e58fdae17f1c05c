"""Asks a version about rows between one row and its background, and its trees where it is nothing else.

It is asked in pieces, so that a prediction never waits for more than one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_bundle.runtimes.base import Predicted, positive_scores, scale
from modelyard_bundle.signature import Columns
from modelyard_common.clock import Clock
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.domain.requests import Late
from modelyard_inference.domain.shapley import Contributions
from modelyard_inference.domain.tree_shapley import Seen, TreeModel, features_of_columns, in_trees, same
from modelyard_inference.usecases.serving import LoadedVersion

__all__ = [
    "COMPARED",
    "RESIDUE",
    "Asked",
    "Ground",
    "Mixed",
    "Play",
    "Target",
    "TooSlow",
    "VersionTrees",
    "matching_trees",
]

RESIDUE = 1e-4
"""Of the sum, against the spread of the answers: probabilities in 32 bits lose more than this only near 0 and 1."""
_AT_ONCE = 2048
"""Rows that the model is asked at a time: a prediction that needs the same runtime waits for these at most."""
COMPARED = 256
"""Rows in between of which trees have to say what is answered."""
_ROUNDINGS = 8
"""Of an answer in 32 bits: it is a sum of many."""
_TINY = 1e-12
_FAR = 700.0
"""Log-odds of which the probability is 0 or 1 in 64 bits, and no more than they hold."""


@dataclass(frozen=True, slots=True)
class VersionTrees:
    """The trees of a version, which say what it answers.

    Attributes:
        seen: the background as they see it.
        logs: they say it in log-odds.
        spread: of the answers to the background.
    """

    model: TreeModel
    seen: Seen
    logs: bool
    spread: float

    def says(self, sums: npt.NDArray[np.float64], answered: npt.NDArray[np.float64]) -> bool:
        """Return whether sums of the trees mean these answers. Probabilities are compared, since of one near 1 its 32
        bits do not tell the log-odds."""
        said = 1 / (1 + np.exp(-np.clip(sums, -_FAR, _FAR))) if self.logs else sums
        rounded = _ROUNDINGS * float(np.finfo(np.float32).eps) * np.abs(answered)
        return bool((np.abs(said - answered) <= RESIDUE * self.spread + rounded + _TINY).all())


@dataclass(slots=True)
class Ground:
    """What a version is explained against.

    Attributes:
        trees: None also where nobody has looked for trees yet.
        slow_s: in which time they did not get through with a row.
    """

    background: Columns
    rows: int
    estimator: str
    trees: VersionTrees | None = None
    looked: bool = False
    slow_s: float = 0.0


class Mixed(Exception):
    """Trees see columns that were made of several features, or are not all that answers."""


class TooSlow(Exception):
    """It would take longer than was said."""


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

    model: str
    loaded: LoadedVersion
    columns: Columns
    row: int
    ground: Ground
    target: Target
    asked: Asked
    logs: bool = False

    def in_log_odds(self, logs: bool) -> Play:
        """Return the same in log-odds instead of probabilities."""
        return replace(self, logs=logs)

    def __call__(self, taken: npt.NDArray[np.bool_], background: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the answers. Raise Late after the deadline."""
        parts = [
            self._asked_for(taken[start : start + _AT_ONCE], background[start : start + _AT_ONCE])
            for start in range(0, len(background), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def in_trees(self, trees: VersionTrees, until: float) -> Contributions:
        """Return the contributions by trees.

        Args:
            until: time of the clock.

        Raises:
            Mixed: they cannot be had so.
            TooSlow: not until then.
        """
        features = len(self.loaded.signature.features)
        [own] = self._seen(trees, np.ones((1, features), bool), np.zeros(1, np.intp))
        of_columns = features_of_columns(self._changed(trees, until), own, trees.seen)
        if of_columns is None:
            raise Mixed
        answer = self._compared(trees, own, of_columns, until)
        found = in_trees(
            trees.model.trees,
            own,
            trees.seen,
            of_columns,
            features,
            self.target.place or 0,
            between=lambda: self.stop_after(until),
        )
        # Of log-odds the trees tell more than the answer, which is a probability of 32 bits.
        return found if trees.logs else replace(found, answer=answer)

    def stop_after(self, until: float) -> None:
        """Raise TooSlow, or Late after the deadline."""
        self.asked.more(0)
        if self.asked.clock.monotonic() > until:
            raise TooSlow

    def _changed(self, trees: VersionTrees, until: float) -> npt.NDArray[np.bool_]:
        """Return which columns change when one feature is the row's, shape (features, columns)."""
        features, rows = len(self.loaded.signature.features), self.ground.rows
        changed = np.empty((features, trees.seen.shape[1]), bool)
        for feature in range(features):
            self.stop_after(until)
            taken = np.zeros((rows, features), bool)
            taken[:, feature] = True
            changed[feature] = ~same(self._seen(trees, taken, np.arange(rows)), trees.seen).all(axis=0)
        return changed

    def _compared(self, trees: VersionTrees, own: Seen, of_columns: npt.NDArray[np.intp], until: float) -> float:
        """Return the answer to the row, if the trees say what is answered to it and to rows in between.

        These are drawn as the formula weighs them: any number of features as likely as any other. So what is wrong in a
        hundredth of them hardly passes, and where it is less, the values are off by as little.

        Raises:
            Mixed: they do not.
            TooSlow: they do not say so until then.
        """
        features, chance = len(self.loaded.signature.features), np.random.default_rng(0)
        counts = chance.integers(0, features + 1, COMPARED)
        counts[0] = features
        taken = np.argsort(np.argsort(chance.random((COMPARED, features)), axis=1), axis=1) < counts[:, None]
        rows = chance.integers(0, self.ground.rows, COMPARED)
        answered = self(taken, rows)
        seen = np.where(taken[:, of_columns], own, trees.seen[rows])
        sums = trees.model.trees.answers(seen, between=lambda: self.stop_after(until))
        if not trees.says(sums[:, self.target.place or 0], answered):
            raise Mixed
        return float(answered[0])

    def _seen(self, trees: VersionTrees, taken: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp]) -> Seen:
        """Return rows in between as the trees see them."""
        self.asked.more(len(rows))
        return trees.model.see(self._between(taken, rows))

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


def matching_trees(model: TreeModel | None, play: Play, until: float) -> VersionTrees | None:
    """Return the trees of a version, if what they say of the background is what it answers.

    Raises:
        TooSlow: they do not say it until then.
    """
    if model is None:
        return None
    ground = play.ground
    seen = model.see(ground.background)
    sums = model.trees.answers(seen, between=lambda: play.stop_after(until))[:, play.target.place or 0]
    answered = play(np.zeros((ground.rows, len(play.loaded.signature.features)), bool), np.arange(ground.rows))
    candidates = [
        VersionTrees(model, seen, logs, scale(answered))
        for logs in ((False,) if play.target.place is None else (False, True))
    ]
    return next((trees for trees in candidates if trees.says(sums, answered)), None)
