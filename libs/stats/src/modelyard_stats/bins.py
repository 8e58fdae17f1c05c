"""The bins of one feature: how values fall into them. Edges are frozen when a version is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FeatureBaseline", "as_numbers", "as_text", "count_bins"]

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


def as_numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return values as numbers, NaN for a missing one or a text, each rounded to 32 bits.

    Models learn from 32 bits and requests carry 64: without the rounding a constant of 0.1 would have moved.
    """
    wide = [float("nan") if value is None or isinstance(value, str) else float(value) for value in values]
    with np.errstate(over="ignore"):
        return np.asarray(wide, dtype=np.float64).astype(np.float32).astype(np.float64)


def as_text(value: Any) -> str:
    """Return a category as text; booleans as JSON writes them."""
    return str(bool(value)).lower() if isinstance(value, bool | np.bool_) else str(value)


def count_bins(reference: FeatureBaseline, values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return counts a bin of values, shape (bins,); missing values are in no bin.

    The last bin of a categorical feature holds what the reference had not seen; a constant has three: below,
    equal, above.
    """
    if reference.kind == "categorical":
        index = {category: i for i, category in enumerate(reference.categories)}
        unseen = len(index)
        places = [index.get(as_text(v), unseen) for v in values if v is not None and v == v]  # noqa: PLR0124  # not NaN
        return np.bincount(np.asarray(places, dtype=np.int64), minlength=unseen + 1).astype(np.int64)
    numbers = as_numbers(values)
    numbers = numbers[~np.isnan(numbers)]
    if reference.kind == "constant":
        centre = reference.edges[0]
        return np.asarray(
            [(numbers < centre).sum(), (numbers == centre).sum(), (numbers > centre).sum()], dtype=np.int64
        )
    places_ = np.searchsorted(np.asarray(reference.edges), numbers, side="left")
    return np.bincount(places_, minlength=reference.bins).astype(np.int64)
