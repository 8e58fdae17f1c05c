"""Shapley values of features: what each adds to an answer, against what is usual, however the others are set.

A row is compared with background rows. ``v(S)`` is the answer when the features in S are the row's and the others are
a background row's, averaged over the background (Lundberg & Lee 2017, the interventional form). Then feature j adds

    phi_j = sum over S without j of |S|! (d - |S| - 1)! / d! * (v(S + j) - v(S))

which sums to the answer less the average answer. Three ways to get there, all through the model's own answers:

- ``additive``: where the answer is a sum over features, ``v({j}) - v({})`` is phi_j exactly. Whether it is one is not
  believed but measured, by the sum.
- ``exact``: the formula, over all 2^d subsets.
- ``sampled``: walks from a background row to the row in a random order of the features, each walk followed by its
  reverse, which halves the variance and more where features act together (Strumbelj & Kononenko 2014, "Explaining
  prediction models and individual predictions with feature contributions"; Mitchell et al. 2022 on antithetic walks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt

__all__ = ["Contributions", "Play", "additive", "exact", "exact_cost", "sampled", "walk_cost"]

Floats = npt.NDArray[np.float64]
Play = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.intp]], Floats]
"""(taken: bool, shape (m, features); background: shape (m,)) -> answers, shape (m,).

In answer i the features that are taken are those of the row, and the others those of that background row."""

_FEWEST_PAIRS = 2
"""A standard error takes two."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the features of one row add.

    Attributes:
        values: shape (features,).
        base: the average answer over the background.
        answer: the answer to the row; ``base + values.sum()`` less the error.
        errors: standard errors, shape (features,); None where the values are exact.
        evaluations: rows that the model was asked.
    """

    values: Floats
    base: float
    answer: float
    errors: Floats | None
    evaluations: int

    @property
    def residue(self) -> float:
        """How far the sum is from the answer."""
        return float(self.base + self.values.sum() - self.answer)


def additive(play: Play, features: int, background: int) -> Contributions:
    """Return the contributions in a model that adds its features up; ``residue`` tells whether it is one."""
    alone = np.vstack([np.zeros(features, bool), np.eye(features, dtype=bool)])
    taken = np.repeat(alone, background, axis=0)
    taken = np.vstack([taken, np.ones((1, features), bool)])
    rows = np.append(np.tile(np.arange(background), features + 1), 0)
    answers = play(taken, rows)
    means = answers[:-1].reshape(features + 1, background).mean(axis=1)
    return Contributions(means[1:] - means[0], float(means[0]), float(answers[-1]), None, len(rows))


def exact_cost(features: int, background: int) -> int:
    """Return how many rows ``exact`` asks for."""
    return int(2**features * background)


def exact(play: Play, features: int, background: int) -> Contributions:
    """Return the contributions by the formula.

    Law: efficiency (they sum to the answer less the base), symmetry, and nothing for a feature that changes nothing.
    """
    subsets = (np.arange(2**features)[:, None] >> np.arange(features)) & 1 == 1
    answers = play(np.repeat(subsets, background, axis=0), np.tile(np.arange(background), len(subsets)))
    worth = answers.reshape(len(subsets), background).mean(axis=1)
    sizes = subsets.sum(axis=1)
    weights = np.array([factorial(s) * factorial(features - s - 1) / factorial(features) for s in range(features)])
    values = np.empty(features)
    for feature in range(features):
        without = np.flatnonzero(~subsets[:, feature])
        values[feature] = (weights[sizes[without]] * (worth[without + 2**feature] - worth[without])).sum()
    return Contributions(values, float(worth[0]), float(worth[-1]), None, exact_cost(features, background))


def walk_cost(features: int) -> int:
    """Return how many rows a pair of walks asks for."""
    return 2 * (features + 1)


def sampled(
    play: Play,
    features: int,
    background: int,
    *,
    pairs: int,
    seed: int = 0,
    goes_on: Callable[[], bool] = lambda: True,
    pairs_at_once: int = 16,
) -> Contributions:
    """Return estimates of the contributions, by so many pairs of walks or as many as there was time for.

    Each round through the background takes every row of it once, so that whole rounds sum to the answer exactly.

    Args:
        goes_on: asked between some walks whether there is time for more.
    """
    pairs = max(pairs, _FEWEST_PAIRS)
    chance = np.random.default_rng(seed)
    found: list[Floats] = []
    count = 0
    order = np.empty(0, np.intp)
    base = play(np.zeros((background, features), bool), np.arange(background))
    while count < pairs and (count < _FEWEST_PAIRS or goes_on()):
        now = min(pairs_at_once, pairs - count)
        while len(order) < now:
            order = np.append(order, chance.permutation(background))
        chosen, order = order[:now], order[now:]
        found.append(_walked(play, chance, features, chosen))
        count += now
    deltas = np.concatenate(found)
    answer = play(np.ones((1, features), bool), np.zeros(1, np.intp))
    return Contributions(
        deltas.mean(axis=0),
        float(base.mean()),
        float(answer[0]),
        deltas.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(features, np.inf),
        background + 1 + count * walk_cost(features),
    )


def _walked(play: Play, chance: np.random.Generator, features: int, chosen: npt.NDArray[np.intp]) -> Floats:
    """Return what each feature added on one pair of walks from each chosen row, shape (pairs, features)."""
    forward = np.argsort(chance.random((len(chosen), features)), axis=1)
    orders = np.stack([forward, forward[:, ::-1]], axis=1).reshape(-1, features)
    places = np.argsort(orders, axis=1)
    taken = places[:, None, :] < np.arange(features + 1)[None, :, None]
    rows = np.repeat(np.repeat(chosen, 2), features + 1)
    answers = play(taken.reshape(-1, features), rows).reshape(len(orders), features + 1)
    steps = np.diff(answers, axis=1)
    by_feature = np.take_along_axis(steps, places, axis=1)
    pairs: Floats = by_feature.reshape(len(chosen), 2, features).mean(axis=1)
    return pairs
