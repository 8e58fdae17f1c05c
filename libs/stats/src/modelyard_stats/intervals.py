"""95 % intervals of metrics: Wilson's for shares, the percentile bootstrap for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["bootstrap", "wilson"]

_Z = 1.959963984540054


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Return the interval of a share (Wilson, 1927): honest also near 0 and 1 and for few rows.

    >>> tuple(round(bound, 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    if rows == 0:
        return 0.0, 1.0
    share = hits / rows
    centre = (share + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z / (1 + _Z**2 / rows) * math.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    # Near 0 and 1 rounding would put the share itself just outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap(
    metric: Callable[[npt.NDArray[np.int64]], float | None], rows: int, *, seed: int = 0, resamples: int = 200
) -> tuple[float, float] | None:
    """Return the percentile interval of a metric over resampled rows (Efron, 1979), or None where it has no value.

    Args:
        metric: takes row numbers, shape (rows,), and returns the metric on them.
        resamples: 200 put the bounds within about a tenth of the interval's width.

    >>> heights = np.arange(100.0)
    >>> low, high = bootstrap(lambda rows: float(heights[rows].mean()), 100)
    >>> 40 < low < 49.5 < high < 59
    True
    >>> bootstrap(lambda rows: None, 100) is None
    True
    """
    if rows < 2:
        return None
    generator = np.random.default_rng(seed)
    found = [metric(generator.integers(0, rows, rows)) for _ in range(resamples)]
    values = np.asarray([value for value in found if value is not None])
    if values.size < resamples // 2:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
