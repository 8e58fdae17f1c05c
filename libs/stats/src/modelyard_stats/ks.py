"""The two-sample Kolmogorov-Smirnov test on binned counts.

D = max |F_p − F_q| over the bin edges; p from Kolmogorov's limit distribution (Smirnov, 1948). On bins D is at
most the exact statistic, so the test is conservative by no more than the largest bin's share.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["ks_test"]


def ks_test(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[float, float]:
    """Return (D, p) of two vectors of counts on the same ordered bins, shape (bins,).

    >>> ks_test([10, 10], [10, 10])
    (0.0, 1.0)
    >>> d, p = ks_test([1000, 0], [0, 1000])
    >>> (d, p < 1e-9)
    (1.0, True)
    """
    p, q = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    n, m = p.sum(), q.sum()
    if n == 0 or m == 0:
        return 0.0, 1.0
    distance = float(np.max(np.abs(np.cumsum(p) / n - np.cumsum(q) / m)))
    effective = np.sqrt(n * m / (n + m))
    return distance, float(special.kolmogorov(effective * distance)) if distance > 0 else 1.0
