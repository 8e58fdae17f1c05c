"""Scoring a window: the two-key alarm.

The first key is effect size: PSI over the threshold, and over what chance alone gives at this sample size. The second
is significance: KS (numbers) or χ² (categories) under the false discovery rate of all features together. A window
below the sample floor is insufficient, which is not the same as no drift. Rows are taken as independent; a time
series is not, so significance alone says little there, and the effect size decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard_stats.baseline import PREDICTION, Baseline
from modelyard_stats.bins import FeatureBaseline
from modelyard_stats.chi_square import chi_square_test
from modelyard_stats.counters import Counters, FeatureCounter
from modelyard_stats.fdr import benjamini_hochberg
from modelyard_stats.ks import ks_test
from modelyard_stats.psi import noise, psi

__all__ = ["FeatureScore", "WindowScore", "score_window"]

_PSI_BINS = 10
"""PSI is read on deciles: on a hundred bins its noise at a thousand rows would exceed the usual thresholds."""


@dataclass(frozen=True, slots=True)
class FeatureScore:
    """How one feature stands; shares are of the window's rows."""

    feature: str
    psi: float
    p_value: float
    q_value: float
    effect: bool
    significant: bool
    matters: bool
    importance: float | None
    missing: float
    unseen: float
    out_of_range: float

    @property
    def keys(self) -> int:
        """How many of the two keys turned."""
        return int(self.effect) + int(self.significant)

    @property
    def drifted(self) -> bool:
        """Both keys turned."""
        return self.effect and self.significant


@dataclass(frozen=True, slots=True)
class WindowScore:
    """How a window stands against its baseline. Features that fewer rows carry than the sample floor are left out."""

    sufficient: bool
    features: tuple[FeatureScore, ...]
    prediction: FeatureScore | None


def coarsen(
    reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64], bins: int = _PSI_BINS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Merge ordered bins until each holds about an equal share of the reference. Returns (reference, current).

    A heavy bin stays alone; what lies between heavy bins is merged.

    >>> coarsen(np.array([5, 5, 5, 5, 80]), np.array([1, 2, 3, 4, 5]), bins=2)
    (array([20, 80]), array([10,  5]))
    """
    total = int(reference.sum())
    if reference.size <= bins or total == 0:
        return reference, current
    target = total / bins
    starts, held = [0], 0
    for i in range(reference.size - 1):
        held += int(reference[i])
        if held >= target or int(reference[i + 1]) >= target:
            starts.append(i + 1)
            held = 0
    return np.add.reduceat(reference, starts), np.add.reduceat(current, starts)


def _raw(reference: FeatureBaseline, counter: FeatureCounter, psi_threshold: float) -> tuple[float, bool, float]:
    """Return (psi, effect key, p)."""
    p, q = np.asarray(reference.counts, dtype=np.int64), counter.bins
    if p.sum() == 0 or q.sum() == 0:
        return 0.0, False, 1.0
    if reference.kind == "numeric":
        p_value = ks_test(p, q)[1]
        p, q = coarsen(p, q)
    else:
        p_value = chi_square_test(p, q)[1]
    value = psi(p, q)
    used = int(((p + q) > 0).sum())
    return value, value > max(psi_threshold, noise(int(p.sum()), int(q.sum()), max(2, used))), p_value


def score_window(
    baseline: Baseline, counters: Counters, *, psi_threshold: float, significance: float, min_rows: int
) -> WindowScore:
    """Return how a window's counters stand against the baseline.

    Args:
        psi_threshold: effect size that matters.
        significance: false discovery rate over the features of the window.
        min_rows: the sample floor.

    >>> from modelyard_stats.baseline import build_baseline
    >>> baseline = build_baseline({"x": np.arange(1000.0)}, importances={}, predictions=[])
    >>> counters = Counters.empty(baseline)
    >>> counters.add(baseline, {"x": [999.0] * 500}, [None] * 500)
    >>> score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=200).features[0].drifted
    True
    >>> score_window(baseline, counters, psi_threshold=0.2, significance=0.01, min_rows=501).sufficient
    False
    """
    if counters.rows < min_rows:
        return WindowScore(sufficient=False, features=(), prediction=None)
    told = [part for part in baseline.features if counters.features[part.name].rows >= min_rows]
    parts = [*told, *([baseline.prediction] if baseline.prediction else [])]
    raw = [_raw(part, counters.features[part.name], psi_threshold) for part in parts]
    corrected = benjamini_hochberg([p for _, _, p in raw])
    scores = []
    for part, (value, effect, p_value), q_value in zip(parts, raw, corrected, strict=True):
        counter = counters.features[part.name]
        rows = max(1, counter.rows)
        scores.append(
            FeatureScore(
                feature=part.name,
                psi=value,
                p_value=p_value,
                q_value=q_value,
                effect=effect,
                significant=q_value <= significance,
                matters=part.matters,
                importance=part.importance,
                missing=counter.missing / rows,
                unseen=counter.unseen / rows if part.kind == "categorical" else 0.0,
                out_of_range=counter.out_of_range / rows,
            )
        )
    prediction = scores.pop() if baseline.prediction else None
    assert prediction is None or prediction.feature == PREDICTION  # noqa: S101
    return WindowScore(sufficient=True, features=tuple(scores), prediction=prediction)
