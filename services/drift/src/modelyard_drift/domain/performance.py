"""Performance of labelled rows, by version, with an interval; and whether it is beyond its floor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_stats.intervals import bootstrap, wilson
from modelyard_stats.metrics import compute

__all__ = ["Answered", "Performance", "beyond", "by_version"]

_BOOTSTRAPS = 100
"""Half as many as at training: this runs at every window, and the interval is for looking at."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One labelled row."""

    version: str
    truth: Any
    answer: Any
    score: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """A metric of one version, or of all rows together (version ``""``)."""

    version: str
    metric: str
    value: float
    low: float
    high: float
    rows: int


def by_version(metric: str, rows: Sequence[Answered], *, positive: Any = None) -> list[Performance]:
    """Return the metric of all rows and of each version that answered some of them."""
    groups: dict[str, list[Answered]] = defaultdict(list)
    for row in rows:
        groups[row.version].append(row)
    found = [_measure("", metric, rows, positive)]
    found += [_measure(version, metric, part, positive) for version, part in sorted(groups.items())]
    return [entry for entry in found if entry is not None]


def _measure(version: str, metric: str, rows: Sequence[Answered], positive: Any) -> Performance | None:
    read = _number if metric in {"rmse", "mae", "r2"} else _label
    read_rows = [(row, read(row.truth), read(row.answer)) for row in rows]
    whole = [entry for entry in read_rows if entry[1] is not None and entry[2] is not None]
    if not whole:
        return None
    rows = [row for row, _, _ in whole]
    truth = np.asarray([value for _, value, _ in whole])
    answer = np.asarray([value for _, _, value in whole])
    score = None
    if all(row.score is not None for row in rows):
        score = np.asarray([row.score for row in rows], dtype=float)
    wanted = None if positive is None else _label(positive)

    def on(places: npt.NDArray[np.int64]) -> float | None:
        part = None if score is None else score[places]
        with np.errstate(over="ignore", invalid="ignore"):
            found = compute(metric, truth[places], answer[places], part, positive=wanted)
        return found if found is not None and math.isfinite(found) else None

    value = on(np.arange(len(rows)))
    if value is None:
        return None
    if metric == "accuracy":
        low, high = wilson(int((truth == answer).sum()), len(rows))
    else:
        low, high = bootstrap(on, len(rows), resamples=_BOOTSTRAPS) or (value, value)
    return Performance(version, metric, value, low, high, len(rows))


def _number(value: Any) -> float | None:
    """Return a value as a number; None for what is none, which no error can be taken of."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _label(value: Any) -> str:
    """Return a label as text, so that 1, 1.0 and true from different senders are the same."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def beyond(value: float, *, below: float | None, above: float | None) -> bool:
    """Return whether a metric is beyond its floor or ceiling."""
    return (below is not None and value < below) or (above is not None and value > above)
