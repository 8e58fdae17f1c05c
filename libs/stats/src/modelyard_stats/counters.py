"""Counters on frozen edges: all that is kept of a window.

Laws: counting rows in any split and order, and merging in any order, gives the same counters; the state is
bounded by the baseline, not by the rows.

>>> from modelyard_stats.baseline import build_baseline
>>> baseline = build_baseline({"x": [1.0, 2.0, 3.0]}, importances={}, predictions=[])
>>> one, other = Counters.empty(baseline), Counters.empty(baseline)
>>> one.add(baseline, {"x": [1.0, 9.0]}, [None, None])
>>> other.add(baseline, {"x": [None]}, [None])
>>> whole = one.merge(other).features["x"]
>>> whole.bins.tolist(), whole.rows, whole.missing, whole.out_of_range
([1, 0, 1], 3, 1, 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard_stats.baseline import PREDICTION, Baseline
from modelyard_stats.bins import FeatureBaseline, as_numbers, count_bins, is_missing, place

__all__ = ["Counters", "FeatureCounter"]

Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class FeatureCounter:
    """What was counted of one feature."""

    bins: Counts
    rows: int = 0
    missing: int = 0
    out_of_range: int = 0
    wrong_type: int = 0

    def add(self, reference: FeatureBaseline, values: Sequence[Any]) -> None:
        """Count values, each once: in a bin, as missing, or as of the wrong type."""
        self.rows += len(values)
        if reference.kind == "categorical":
            self.bins = self.bins + count_bins(reference, values)
            self.missing += sum(map(is_missing, values))
            return
        numbers = as_numbers(values)
        texts = sum(isinstance(value, str) for value in values)
        self.bins = self.bins + place(reference, numbers)
        self.wrong_type += texts
        self.missing += int(np.isnan(numbers).sum()) - texts
        if reference.low is not None and reference.high is not None:
            self.out_of_range += int(((numbers < reference.low) | (numbers > reference.high)).sum())

    def merge(self, other: FeatureCounter) -> FeatureCounter:
        """Return the sum of two counters of the same feature."""
        return FeatureCounter(
            self.bins + other.bins,
            self.rows + other.rows,
            self.missing + other.missing,
            self.out_of_range + other.out_of_range,
            self.wrong_type + other.wrong_type,
        )

    @property
    def unseen(self) -> int:
        """Values in the last bin: for a categorical feature, those that the reference had not seen."""
        return int(self.bins[-1])


@dataclass(slots=True)
class Counters:
    """The counters of one window."""

    features: dict[str, FeatureCounter] = field(default_factory=dict)
    rows: int = 0

    @classmethod
    def empty(cls, baseline: Baseline) -> Counters:
        """Return counters of no rows."""
        parts = [*baseline.features, *([baseline.prediction] if baseline.prediction else [])]
        return cls({part.name: FeatureCounter(np.zeros(part.bins, dtype=np.int64)) for part in parts})

    def add(self, baseline: Baseline, columns: Mapping[str, Sequence[Any]], predictions: Sequence[Any]) -> None:
        """Count rows: columns of equal length, and the model's answers. A column that is left out is missing."""
        rows = len(predictions)
        for reference in baseline.features:
            values = columns.get(reference.name)
            self.features[reference.name].add(reference, values if values is not None else [None] * rows)
        if baseline.prediction is not None:
            self.features[PREDICTION].add(baseline.prediction, predictions)
        self.rows += rows

    def merge(self, other: Counters) -> Counters:
        """Return the sum of two counters on the same baseline."""
        merged = {name: counter.merge(other.features[name]) for name, counter in self.features.items()}
        return Counters(merged, self.rows + other.rows)

    def to_document(self) -> dict[str, Any]:
        """Return the counters as plain JSON values. Law: ``from_document(to_document(c))`` equals c."""
        return {
            "rows": self.rows,
            "features": {
                name: {
                    "bins": counter.bins.tolist(),
                    "rows": counter.rows,
                    "missing": counter.missing,
                    "out_of_range": counter.out_of_range,
                    "wrong_type": counter.wrong_type,
                }
                for name, counter in self.features.items()
            },
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Counters:
        """Return the counters that a document holds."""
        features = {
            name: FeatureCounter(**(entry | {"bins": np.asarray(entry["bins"], dtype=np.int64)}))
            for name, entry in document["features"].items()
        }
        return cls(features, document["rows"])
