"""What was counted of one version so far, read from the metrics: one count, shown in two places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelyard_inference.adapters.metrics import REQUESTS, ROWS, SECONDS
from modelyard_inference.domain.records import Totals

__all__ = ["totals_of"]

_ANSWERED = "answered"


def totals_of(model: str, version: int) -> Totals:
    """Return the totals of a version since this process started; shadow copies count too, as work that was done."""
    outcomes = list(_samples(REQUESTS, "_total", model, version))
    return Totals(
        answers=round(sum(value for labels, value in outcomes if labels["outcome"] == _ANSWERED)),
        failures=round(sum(value for labels, value in outcomes if labels["outcome"] != _ANSWERED)),
        rows=round(sum(value for _, value in _samples(ROWS, "_total", model, version))),
        predict_s=sum(value for _, value in _samples(SECONDS, "_sum", model, version)),
    )


def _samples(metric: Any, suffix: str, model: str, version: int) -> Iterator[tuple[dict[str, str], float]]:
    wanted = {"model": model, "version": str(version)}
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith(suffix) and wanted.items() <= sample.labels.items():
                yield sample.labels, sample.value
