"""Metrics of judged rows, computed with numpy alone so that drift needs no scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["compute", "compute_all"]

Floats = npt.NDArray[np.float64]

_NAMES = frozenset({"accuracy", "balanced_accuracy", "f1", "log_loss", "mae", "r2", "rmse", "roc_auc"})


def compute_all(
    names: Sequence[str],
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    score: npt.ArrayLike | None = None,
    *,
    positive: Any = None,
) -> dict[str, float]:
    """Return those of the metrics that these rows allow; see ``compute``."""
    found = {name: compute(name, truth, predicted, score, positive=positive) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def compute(
    name: str,
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    score: npt.ArrayLike | None = None,
    *,
    positive: Any = None,
) -> float | None:
    """Return one metric, or None where these rows do not allow it (one class only, no scores, no rows).

    accuracy: share of y = ŷ. balanced_accuracy: mean over the classes c in y of the share of ŷ = c where y = c
    (Brodersen et al., 2010). f1: 2·tp / (2·tp + fp + fn) of the positive class (van Rijsbergen, 1979). roc_auc: the
    chance that a positive row scores above a negative one, ties half (Mann & Whitney, 1947). log_loss:
    −mean(ln p of what came true), p kept from 0 and 1 by 1e-15 (Good, 1952). rmse: √mean((y − ŷ)²). mae:
    mean(|y − ŷ|). r2: 1 − Σ(y − ŷ)² / Σ(y − ȳ)² (Wright, 1921).

    Args:
        truth: labels or values, shape (rows,).
        predicted: labels or values, shape (rows,).
        score: probability of the positive class, shape (rows,).
        positive: the positive class; the greatest label when left out.

    Raises:
        ValueError: there is no metric of this name.

    >>> compute("accuracy", [1, 0, 1, 1], [1, 0, 0, 1])
    0.75
    >>> compute("rmse", [1.0, 2.0], [1.0, 4.0]) == 2**0.5
    True
    >>> compute("roc_auc", [0, 1, 1], [0, 1, 1], [0.2, 0.2, 0.9])
    0.75
    """
    if name not in _NAMES:
        raise ValueError(f"{name} is not a metric; there is {', '.join(sorted(_NAMES))}")
    y, p = np.asarray(truth), np.asarray(predicted)
    if y.size == 0:
        return None
    if name in {"rmse", "mae", "r2"}:
        return _regression(name, y.astype(float), p.astype(float))
    if name == "accuracy":
        return float(np.mean(y == p))
    classes = np.unique(y)
    if name == "balanced_accuracy":
        return float(np.mean([np.mean(p[y == c] == c) for c in classes]))
    hit = y == (classes[-1] if positive is None else positive)
    if name == "f1":
        guessed = p == (classes[-1] if positive is None else positive)
        both = float(np.sum(hit & guessed))
        return 2 * both / denominator if (denominator := float(hit.sum() + guessed.sum())) > 0 else None
    if score is None or hit.all() or not hit.any():
        return None
    s = np.asarray(score, dtype=float)
    return _auc(hit, s) if name == "roc_auc" else _log_loss(hit, s)


def _regression(name: str, y: Floats, p: Floats) -> float | None:
    if name == "rmse":
        return float(np.sqrt(np.mean((y - p) ** 2)))
    if name == "mae":
        return float(np.mean(np.abs(y - p)))
    spread = float(np.sum((y - y.mean()) ** 2))
    return 1 - float(np.sum((y - p) ** 2)) / spread if spread > 0 else None


def _auc(hit: npt.NDArray[np.bool_], score: Floats) -> float:
    """Return the area under the ROC curve by ranks, ties counted half (Mann & Whitney, 1947)."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(hit.sum())
    negatives = hit.size - positives
    return float((ranks[hit].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _log_loss(hit: npt.NDArray[np.bool_], score: Floats) -> float:
    p = np.clip(score, 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(hit, np.log(p), np.log(1 - p))))
