"""Build the report on a window: what drifted, how far, how the model did, what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_stats.baseline import PREDICTION, Baseline
from modelyard_stats.bins import FeatureBaseline
from modelyard_stats.counters import Counters, FeatureCounter

from modelyard_drift.domain.severity import PREDICTION_NAME
from modelyard_drift.usecases.browse import Browse
from modelyard_drift.usecases.fetch_baseline import FetchBaseline
from modelyard_drift.usecases.ports import Transactions

__all__ = ["BuildReport"]

_BARS = 10
_TREND_WINDOWS = 50


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Reads one window and what surrounds it."""

    transactions: Transactions
    browse: Browse
    baselines: FetchBaseline

    def __call__(self, model: str, window: str) -> dict[str, Any]:
        """Return the report as plain values. Raise NotFound when there is no such closed window."""
        found = self.browse.window(model, window)
        with self.transactions.read() as store:
            baseline = self.baselines.kept(store, found.view.reference)
            before = [entry.view for entry in store.windows(model, before=found.index + 1, limit=_TREND_WINDOWS)]
        episodes = [
            view.model_dump(mode="json")
            for _, view in self.browse.episodes(model, before=None, limit=500)
            if view.opened_window == window or view.reference == found.view.reference
        ]
        counters = Counters.from_document(dict(found.counters))
        return {
            "format": "modelyard.drift-report/v1",
            "window": found.view.model_dump(mode="json"),
            "reference_rows": baseline.rows,
            "reference_metrics": dict(baseline.metrics),
            "distributions": _distributions(baseline, counters),
            "trend": [
                {
                    "window": view.id,
                    "severity": view.severity,
                    "psi": {feature.feature: feature.psi for feature in view.features},
                    "performance": [entry.model_dump(mode="json") for entry in view.performance],
                    "first_row": view.first_row,
                    "event_time_until": view.event_time_until.isoformat() if view.event_time_until else None,
                }
                for view in reversed(before)
            ],
            "episodes": episodes,
        }


def _distributions(baseline: Baseline, counters: Counters) -> dict[str, dict[str, Any]]:
    parts = [*baseline.features, *([baseline.prediction] if baseline.prediction else [])]
    return {
        PREDICTION_NAME if part.name == PREDICTION else part.name: _shares(part, counters.features[part.name])
        for part in parts
        if part.name in counters.features and counters.features[part.name].rows
    }


def _shares(reference: FeatureBaseline, counter: FeatureCounter) -> dict[str, Any]:
    """Return both distributions as shares over the same few bars, with the bars' names."""
    before, now = np.asarray(reference.counts, dtype=float), counter.bins.astype(float)
    if reference.kind == "numeric":
        names, before, now = _merged(reference, before, now)
    elif reference.kind == "constant":
        value = f"{reference.edges[0]:.4g}"
        names = [f"< {value}", value, f"> {value}"]
    else:
        names = [*reference.categories, "unseen"]
    return {
        "kind": reference.kind,
        "bars": names,
        "reference": (before / max(1.0, before.sum())).tolist(),
        "window": (now / max(1.0, now.sum())).tolist(),
    }


def _merged(reference: FeatureBaseline, before: Any, now: Any) -> tuple[list[str], Any, Any]:
    """Merge fine bins into about ten of equal weight in the reference."""
    total = before.sum()
    starts, held = [0], 0.0
    for place in range(len(before) - 1):
        held += before[place]
        if held >= total / _BARS:
            starts.append(place + 1)
            held = 0.0
    edges = [reference.edges[start - 1] for start in starts[1:]]
    low = [f"{edge:.3g}" for edge in edges]
    names = [f"≤ {low[0]}" if low else "all", *(f"≤ {edge}" for edge in low[1:]), *([f"> {low[-1]}"] if low else [])]
    return names, np.add.reduceat(before, starts), np.add.reduceat(now, starts)
