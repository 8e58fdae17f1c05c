"""The population stability index: how far a distribution moved, as an effect size.

PSI = Σ (qᵢ − pᵢ) · ln(qᵢ / pᵢ) over bins, p the reference and q the current shares; the symmetrised
Kullback-Leibler divergence (Jeffreys, 1946; Kullback & Leibler, 1951). Under no change PSI · (1/n + 1/m)⁻¹ follows
χ² with bins − 1 degrees of freedom (Yurdakul & Naranjo, 2020): ``noise`` gives its upper quantile.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["noise", "psi"]


def psi(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the index of two vectors of counts.

    Args:
        reference: counts, shape (bins,).
        current: counts on the same bins, shape (bins,).

    Both are smoothed by half a count a bin (Jeffreys' prior), so that an empty bin weighs what its sample size
    allows and no arbitrary constant decides. Bins empty on both sides are left out.

    >>> psi([50, 50], [50, 50])
    0.0
    >>> round(psi([100, 100], [150, 50]), 3)
    0.272
    """
    p, q = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    used = (p + q) > 0
    p, q = p[used], q[used]
    if p.size < 2 or p.sum() == 0 or q.sum() == 0:
        return 0.0
    p = (p + 0.5) / (p.sum() + 0.5 * p.size)
    q = (q + 0.5) / (q.sum() + 0.5 * q.size)
    return float(np.sum((q - p) * np.log(q / p)))


def noise(reference_rows: int, current_rows: int, bins: int, *, quantile: float = 0.999) -> float:
    """Return the value that PSI stays under with this probability when nothing changed.

    >>> noise(1000, 1000, 10) < 0.06
    True
    >>> noise(10_000, 100, 10) > 0.25
    True
    """
    if min(reference_rows, current_rows) < 1 or bins < 2:
        return float("inf")
    return float(stats.chi2.ppf(quantile, bins - 1) * (1 / reference_rows + 1 / current_rows))
