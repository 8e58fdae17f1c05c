"""The false discovery rate: p-values of many features looked at together (Benjamini & Hochberg, 1995)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["benjamini_hochberg"]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return q-values: rejecting all q ≤ α keeps the expected share of false alarms among alarms at most α.

    Laws: q ≥ p; the order of p-values is kept; one p-value alone is its own q.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    if not p_values:
        return []
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    q = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1.0)
    result = np.empty_like(q)
    result[order] = q
    return [float(value) for value in result]
