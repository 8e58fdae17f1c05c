"""How bad a window is: quality faults first, then drift, then performance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from modelyard_stats.baseline import PREDICTION, Baseline
from modelyard_stats.counters import Counters
from modelyard_stats.scoring import FeatureScore, WindowScore

__all__ = [
    "ORDER",
    "PERFORMANCE_PREFIX",
    "PREDICTION_NAME",
    "Severity",
    "drifted_features",
    "quality_faults",
    "severity_of",
    "worst",
]

Severity = Literal["none", "low", "high", "critical"]
ORDER: tuple[Severity, ...] = ("none", "low", "high", "critical")
PREDICTION_NAME = "prediction"
"""How the model's own answers are called in episodes."""
PERFORMANCE_PREFIX = "performance:"
"""Before the metric, in the episodes of a model that performs below its floor."""


def worst(first: Severity, second: Severity) -> Severity:
    """Return the graver of two."""
    return max(first, second, key=ORDER.index)


def drifted_features(score: WindowScore) -> dict[str, Severity]:
    """Return what drifted (both keys), each with its severity: high when it matters, else low."""
    found: dict[str, Severity] = {
        feature.feature: "high" if feature.matters else "low" for feature in score.features if feature.drifted
    }
    if score.prediction is not None and score.prediction.drifted:
        found[PREDICTION_NAME] = "high"
    return found


def severity_of(score: WindowScore) -> Severity:
    """Return low for one key anywhere, high for both on a feature that matters or on the prediction."""
    result: Severity = "none"
    parts: list[FeatureScore] = [*score.features, *([score.prediction] if score.prediction else [])]
    for part in parts:
        if part.drifted and (part.matters or part.feature == PREDICTION):
            return "high"
        if part.keys:
            result = "low"
    return result


def quality_faults(
    baseline: Baseline, counters: Counters, *, max_missing: float, required: Mapping[str, bool]
) -> tuple[str, ...]:
    """Return what is broken about the data, in words: values missing that were there, or of another type.

    Broken data must not train a model, so any of these keeps drift from commanding a run.
    """
    faults = []
    for feature in baseline.features:
        counter = counters.features[feature.name]
        if counter.rows == 0:
            continue
        missing = counter.missing / counter.rows
        before = feature.missing / feature.rows if feature.rows else 0.0
        if required.get(feature.name, True) and missing > max(max_missing, before + max_missing):
            faults.append(f"{feature.name}: {missing:.1%} of its values are missing ({before:.1%} in the reference)")
        if counter.wrong_type:
            faults.append(f"{feature.name}: {counter.wrong_type} values are text where the reference has numbers")
    return tuple(faults)
