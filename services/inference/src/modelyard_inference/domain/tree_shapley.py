"""Shapley values of features in a sum of trees, exactly, however many features there are.

The game is that of ``shapley``. A leaf is an answer on its conditions, and in it a feature matters only where the row
and the background row part: where the row keeps all of its conditions on the leaf's path and the background row does
not, the leaf needs the feature taken (set A, a of them); where it is the other way round, left (set B, b of them);
where neither keeps them, nothing reaches the leaf. So the leaf's worth in a subset S is its value if A lies in S and B
outside, and the formula gives

    value * (a - 1)! b! / (a + b)!   to each feature of A,
    - value * a! (b - 1)! / (a + b)!   to each of B,

summed over leaves and averaged over the background (Lundberg et al. 2020, "From local explanations to global
understanding with explainable AI for trees", the interventional form; Laberge & Pequignot 2022, "Understanding
interventional TreeSHAP", for these weights).

A tree may ask about columns that features were made into, several of one feature among them. They are taken together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from modelyard_bundle.signature import Columns

from modelyard_inference.domain.shapley import Contributions

__all__ = ["Seen", "TreeModel", "Trees", "features_of_columns", "in_trees", "same"]

Floats = npt.NDArray[np.float64]
Seen = npt.NDArray[np.float32]
"""Columns as trees see them, shape (rows, columns)."""

_AT_ONCE = 250_000
"""Conditions times rows that are looked at together: some milliseconds, in which predictions may have to wait."""
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Trees:
    """A sum of trees, as the conditions of its leaves, those of a leaf in a row.

    Attributes:
        starts: where each leaf's conditions begin, shape (leaves,); no leaf is without one.
        columns, thresholds: what each condition asks about, shape (conditions,).
        wants_most: it holds for values up to the threshold; else for those above.
        takes_missing: it holds for a missing value.
        values: of each leaf, shape (leaves, outputs).
        base: what is added to the sum, shape (outputs,).
        count: of the trees.
    """

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int32]
    thresholds: Seen
    wants_most: npt.NDArray[np.bool_]
    takes_missing: npt.NDArray[np.bool_]
    values: Floats
    base: Floats
    count: int

    @property
    def leaves_a_tree(self) -> float:
        """How many there are on average: an answer visits one of them, an explanation all."""
        return len(self.starts) / self.count

    def answers(self, seen: Seen, *, between: Callable[[], None] = lambda: None) -> Floats:
        """Return the sums, shape (rows, outputs).

        Args:
            between: called between pieces of the work; it may raise.
        """
        found = np.repeat(self.base[None, :], len(seen), axis=0)
        for leaves, conditions in self.pieces(len(seen)):
            between()
            kept = np.logical_and.reduceat(self.kept(seen, conditions), self.starts[leaves] - conditions.start, axis=1)
            found += kept @ self.values[leaves]
        return found

    def pieces(self, rows: int) -> Iterator[tuple[slice, slice]]:
        """Yield some leaves and their conditions at a time."""
        ends = np.append(self.starts[1:], len(self.columns))
        first = 0
        while first < len(ends):
            most = self.starts[first] + max(1, _AT_ONCE // max(1, rows))
            last = max(first + 1, int(np.searchsorted(ends, most, side="right")))
            yield slice(first, last), slice(int(self.starts[first]), int(ends[last - 1]))
            first = last

    def kept(self, seen: Seen, conditions: slice) -> npt.NDArray[np.bool_]:
        """Return which rows keep which conditions, shape (rows, conditions)."""
        asked = seen[:, self.columns[conditions]]
        kept: npt.NDArray[np.bool_] = (asked <= self.thresholds[conditions]) == self.wants_most[conditions]
        if (missing := np.isnan(asked)).any():
            kept = np.where(missing, self.takes_missing[conditions], kept)
        return kept


@dataclass(frozen=True, slots=True)
class TreeModel:
    """Trees, and how rows become the columns that they ask about."""

    trees: Trees
    see: Callable[[Columns], Seen]


def features_of_columns(changed: npt.NDArray[np.bool_], row: Seen, background: Seen) -> npt.NDArray[np.intp] | None:
    """Return which feature each column was made of; None where a column was made of several.

    -1 for columns that are the same in all. A column of three features and more may pass for one of none or of one:
    whoever uses this compares answers.

    Args:
        changed: which columns change in some background row when one feature is the row's, shape (features, columns).
        row: shape (columns,).
        background: shape (background rows, columns).
    """
    by = changed.sum(axis=0)
    if (by > 1).any() or not same(background[:, by == 0], row[by == 0]).all():
        return None
    return np.where(by == 1, changed.argmax(axis=0), _NOBODY)


def same(one: Seen, other: Seen) -> npt.NDArray[np.bool_]:
    """Return where values are the same, or both missing."""
    equal: npt.NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal


def in_trees(
    trees: Trees,
    row: Seen,
    background: Seen,
    of_columns: npt.NDArray[np.intp],
    features: int,
    output: int,
    *,
    between: Callable[[], None] = lambda: None,
) -> Contributions:
    """Return the contributions to one output.

    Args:
        row: shape (columns,).
        background: shape (background rows, columns).
        of_columns: which feature each column was made of, see ``features_of_columns``.
        between: called between pieces of the work; it may raise.
    """
    rows = len(background)
    values = np.zeros(features + 1)
    base = answer = float(trees.base[output])
    for leaves, conditions in trees.pieces(rows):
        between()
        places = of_columns[trees.columns[conditions]]
        sizes = np.diff(np.append(trees.starts[leaves], conditions.stop))
        leaf = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((places, leaf))
        places, leaf = places[order], leaf[order]
        starts = np.flatnonzero(np.append(True, (np.diff(places) != 0) | (np.diff(leaf) != 0)))
        usual = np.logical_and.reduceat(trees.kept(background, conditions)[:, order], starts, axis=1)
        own = np.logical_and.reduceat(trees.kept(row[None, :], conditions)[:, order], starts, axis=1)
        places, leaf = places[starts], leaf[starts]
        of_leaf = np.flatnonzero(np.append(True, np.diff(leaf) != 0))
        worth = trees.values[leaves, output]
        base += float(np.logical_and.reduceat(usual, of_leaf, axis=1).mean(axis=0) @ worth)
        answer += float(np.logical_and.reduceat(own, of_leaf, axis=1)[0] @ worth)
        taken, left = own & ~usual, usual & ~own
        some_taken = np.add.reduceat(taken, of_leaf, axis=1, dtype=np.int64)
        some_left = np.add.reduceat(left, of_leaf, axis=1, dtype=np.int64)
        is_reached = ~np.logical_or.reduceat(~(own | usual), of_leaf, axis=1)
        to_taken, to_left = _weights(int(some_taken.max(initial=0)), int(some_left.max(initial=0)))
        gains = np.where(is_reached, to_taken[some_taken, some_left], 0.0) * worth
        losses = np.where(is_reached, to_left[some_taken, some_left], 0.0) * worth
        each = (taken * gains[:, leaf] - left * losses[:, leaf]).mean(axis=0)
        values += np.bincount(np.where(places == _NOBODY, features, places), each, minlength=features + 1)
    return Contributions(values[:features], base, answer, None, 0)


def _weights(most_taken: int, most_left: int) -> tuple[Floats, Floats]:
    """Return (a - 1)! b! / (a + b)! and a! (b - 1)! / (a + b)! for all a and b; 0 where there is no such feature."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most_taken + most_left + 1)))])
    a, b = np.arange(most_taken + 1)[:, None], np.arange(most_left + 1)[None, :]
    to_taken = np.exp(logs[np.maximum(a - 1, 0)] + logs[b] - logs[a + b])
    to_left = np.exp(logs[a] + logs[np.maximum(b - 1, 0)] - logs[a + b])
    return np.where(a > 0, to_taken, 0.0), np.where(b > 0, to_left, 0.0)
