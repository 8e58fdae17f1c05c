"""The baseline: what a model's inputs and answers looked like when it was made, as frozen bins with counts.

Edges are fixed once and travel with the version, so that windows, replicas and minutes add up exactly, and one
outlier in the current data moves no bin.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard_stats.bins import FeatureBaseline, as_numbers, as_text, count_bins, is_missing

__all__ = ["PREDICTION", "Baseline", "build_baseline", "build_feature"]

PREDICTION = "__prediction"
"""The name under which the model's own answers are counted."""

MAX_EDGES = 100
"""Quantile edges a feature; binned KS then errs by at most 0.01. More would cost memory and gain nothing."""
MAX_CATEGORIES = 200
"""Rarer categories than these are counted together; bounds the state of a feature."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """All features and the prediction of one version."""

    features: tuple[FeatureBaseline, ...]
    prediction: FeatureBaseline | None
    rows: int
    metrics: dict[str, float]

    def to_json(self) -> str:
        """Return the baseline as JSON. Law: ``Baseline.from_json(b.to_json()) == b``."""
        return json.dumps({"format": "modelyard.baseline/v1", **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Baseline:
        """Return the baseline that text holds. Raise ValueError when it is none."""
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != "modelyard.baseline/v1":
            raise ValueError("this is not a baseline of the format modelyard.baseline/v1")
        try:
            prediction = document["prediction"]
            return cls(
                features=tuple(_feature(entry) for entry in document["features"]),
                prediction=_feature(prediction) if prediction is not None else None,
                rows=document["rows"],
                metrics=document["metrics"],
            )
        except (AttributeError, KeyError, TypeError) as exc:
            raise ValueError("this baseline has not the fields of the format modelyard.baseline/v1") from exc


def _feature(entry: Mapping[str, Any]) -> FeatureBaseline:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return FeatureBaseline(**fields)


def build_feature(
    name: str, values: Sequence[Any] | npt.NDArray[Any], *, importance: float | None = None, matters: bool = True
) -> FeatureBaseline:
    """Return the reference of one feature.

    Args:
        values: shape (rows,); numbers, booleans or texts; None and NaN are missing.

    >>> build_feature("x", [1.0, 2.0, 2.0, 3.0, None]).counts
    (1, 2, 1)
    >>> build_feature("x", ["b", "a", "b"]).categories
    ('a', 'b')
    >>> build_feature("x", [5.0, 5.0]).kind
    'constant'
    """
    items = list(values)
    present = [value for value in items if not is_missing(value)]
    common: dict[str, Any] = {"name": name, "rows": len(items), "missing": len(items) - len(present)}
    text = any(isinstance(value, str) for value in present)
    distinct = set(present)
    truths = bool(distinct) and all(isinstance(value, bool | np.bool_) for value in distinct)
    if text or truths:
        ranked = [value for value, _ in Counter(map(as_text, present)).most_common(MAX_CATEGORIES)]
        shape = FeatureBaseline(**common, kind="categorical", categories=tuple(sorted(ranked)))
    else:
        numbers = as_numbers(present)
        numbers = numbers[np.isfinite(numbers)]  # infinite ones are counted outermost, and are no edge
        if numbers.size == 0 or numbers.min() == numbers.max():
            value = float(numbers[0]) if numbers.size else 0.0
            shape = FeatureBaseline(**common, kind="constant", edges=(value,), low=value, high=value)
        else:
            shape = FeatureBaseline(
                **common, kind="numeric", edges=_edges(numbers), low=float(numbers.min()), high=float(numbers.max())
            )
    counts = count_bins(shape, items)
    fields = {field: getattr(shape, field) for field in FeatureBaseline.__slots__}
    unmeasured = shape.kind == "constant"
    return FeatureBaseline(
        **fields
        | {
            "counts": tuple(int(count) for count in counts),
            "importance": None if unmeasured else importance,
            "matters": True if unmeasured else matters,
        }
    )


def _edges(numbers: npt.NDArray[np.float64]) -> tuple[float, ...]:
    distinct = np.unique(numbers)
    if distinct.size <= MAX_EDGES:
        return tuple(float(value) for value in distinct[:-1])
    quantiles = np.quantile(numbers, np.linspace(0, 1, MAX_EDGES + 1)[1:-1], method="lower")
    return tuple(float(value) for value in np.unique(quantiles) if value < distinct[-1])


def build_baseline(
    columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
    *,
    importances: Mapping[str, float],
    predictions: Sequence[Any] | npt.NDArray[Any],
    metrics: Mapping[str, float] | None = None,
) -> Baseline:
    """Return the baseline of a version.

    Args:
        columns: feature name to values, each of shape (rows,).
        importances: permutation importance a feature (negative ones count as zero); any scale.
        predictions: what drift watches of the answers: the positive class's probability, a value, or labels.
        metrics: of the run's judged rows.
    """
    positive = {name: max(0.0, float(importances.get(name, 0.0))) for name in columns}
    total = sum(positive.values())
    shares = {name: value / total if total > 0 else 0.0 for name, value in positive.items()}
    least = 0.5 / max(1, len(columns))
    features = tuple(
        build_feature(name, values, importance=shares[name], matters=total == 0 or shares[name] >= least)
        for name, values in columns.items()
    )
    return Baseline(
        features=features,
        prediction=build_feature(PREDICTION, predictions) if len(predictions) else None,
        rows=max((feature.rows for feature in features), default=0),
        metrics=dict(metrics or {}),
    )
