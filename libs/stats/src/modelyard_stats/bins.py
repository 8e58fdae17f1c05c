"""The bins of one feature: how values fall into them. Edges are frozen when a version is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FeatureBaseline", "as_numbers", "as_text", "count_bins", "is_missing", "place"]

Kind = Literal["numeric", "categorical", "constant"]


@dataclass(frozen=True, slots=True)
class FeatureBaseline:
    """One feature's reference.

    Attributes:
        kind: how values are binned.
        edges: numeric: ascending inner edges; bin i holds edges[i-1] < x ≤ edges[i]. constant: the one value.
        categories: categorical: the known ones, as text.
        counts: reference counts a bin, in the order of ``Counters``.
        rows: reference rows, missing ones included.
        missing: reference rows without a value.
        low, high: the range seen.
        importance: share of the model's permutation importance; None where it could not be measured.
        matters: whether drift of this feature can be harm.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    rows: int = 0
    missing: int = 0
    low: float | None = None
    high: float | None = None
    importance: float | None = None
    matters: bool = True

    @property
    def bins(self) -> int:
        """How many bins there are: numeric edges + 1; categories + 1 for unseen; constants three."""
        if self.kind == "numeric":
            return len(self.edges) + 1
        return len(self.categories) + 1 if self.kind == "categorical" else 3


def is_missing(value: Any) -> bool:
    """Return whether value is None or not a number.

    >>> [is_missing(value) for value in (None, float("nan"), 0.0, "")]
    [True, True, False, False]
    """
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def as_numbers(values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return values as numbers, shape (rows,), NaN for a missing one or a text, each rounded to 32 bits.

    Models learn from 32 bits and requests carry 64: without the rounding a constant of 0.1 would have moved. What
    32 bits do not hold is infinite.

    >>> as_numbers([1, None, "1", True, 10**400]).tolist()
    [1.0, nan, nan, 1.0, inf]
    """
    if any(issubclass(kind, str) for kind in set(map(type, values))):
        values = [None if isinstance(value, str) else value for value in values]
    try:
        wide = np.asarray(values, dtype=np.float64)
    except OverflowError:
        wide = np.asarray([_wide(value) for value in values], dtype=np.float64)
    with np.errstate(over="ignore"):
        return wide.astype(np.float32).astype(np.float64)


def _wide(value: Any) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_text(value: Any) -> str:
    """Return a category as text; booleans as JSON writes them.

    >>> as_text(True), as_text(7)
    ('true', '7')
    """
    return str(bool(value)).lower() if isinstance(value, bool | np.bool_) else str(value)


def count_bins(reference: FeatureBaseline, values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return counts a bin of values, shape (bins,); missing values are in no bin.

    The last bin of a categorical feature holds what the reference had not seen; a constant has three: below,
    equal, above.

    >>> count_bins(FeatureBaseline("x", "numeric", edges=(0.0, 1.0)), [-5, 0, 0.5, 7, None]).tolist()
    [2, 1, 1]
    >>> count_bins(FeatureBaseline("x", "categorical", categories=("a", "b")), ["b", "z", None]).tolist()
    [0, 1, 1]
    >>> count_bins(FeatureBaseline("x", "constant", edges=(0.0,)), [0, 0, 3]).tolist()
    [0, 2, 1]
    """
    if reference.kind == "categorical":
        index = {category: i for i, category in enumerate(reference.categories)}
        unseen = len(index)
        places = [index.get(as_text(value), unseen) for value in values if not is_missing(value)]
        return np.bincount(np.asarray(places, dtype=np.int64), minlength=unseen + 1).astype(np.int64)
    return place(reference, as_numbers(values))


def place(reference: FeatureBaseline, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return counts a bin of numbers, shape (bins,), for a feature that is not categorical; NaN is in no bin."""
    numbers = numbers[~np.isnan(numbers)]
    if reference.kind == "constant":
        centre = reference.edges[0]
        return np.asarray(
            [(numbers < centre).sum(), (numbers == centre).sum(), (numbers > centre).sum()], dtype=np.int64
        )
    places = np.searchsorted(np.asarray(reference.edges), numbers, side="left")
    return np.bincount(places, minlength=reference.bins).astype(np.int64)
