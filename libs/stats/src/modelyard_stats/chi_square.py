"""The χ² test of homogeneity on counts (Pearson, 1900).

Categories whose expected count is under five are merged into one (Cochran, 1954), since rare ones would
otherwise alarm by themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["chi_square_test"]

_LEAST_EXPECTED = 5.0


def chi_square_test(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[float, float]:
    """Return (χ², p) of two vectors of counts, shape (categories,).

    >>> chi_square_test([50, 50], [50, 50])
    (0.0, 1.0)
    >>> chi_square_test([500, 500], [900, 100])[1] < 1e-9
    True
    """
    p, q = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    n, m = p.sum(), q.sum()
    if n == 0 or m == 0:
        return 0.0, 1.0
    rare = (p + q) * min(n, m) / (n + m) < _LEAST_EXPECTED
    if rare.any():
        p = np.append(p[~rare], p[rare].sum())
        q = np.append(q[~rare], q[rare].sum())
    used = (p + q) > 0
    p, q = p[used], q[used]
    if p.size < 2:
        return 0.0, 1.0
    expected_p, expected_q = (p + q) * n / (n + m), (p + q) * m / (n + m)
    statistic = float(np.sum((p - expected_p) ** 2 / expected_p) + np.sum((q - expected_q) ** 2 / expected_q))
    return statistic, float(stats.chi2.sf(statistic, p.size - 1))
