"""What was counted of one version so far, read from the metrics: one count, shown in two places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelyard_inference.adapters.metrics import REQUESTS, ROWS, SECONDS
from modelyard_inference.domain.records import Totals

__all__ = ["COUNTED", "Sample", "totals_from", "totals_of"]

_ANSWERED = "answered"
_METRICS: Sequence[Any] = (REQUESTS, ROWS, SECONDS)
COUNTED = [family.name for metric in _METRICS for family in metric.describe()]
"""The metrics that totals are made of."""

Sample = tuple[str, Mapping[str, str], float]


def totals_of(model: str, version: int) -> Totals:
    """Return the totals of a version since this process started; shadow copies count too, as work that was done."""
    samples = [
        (sample.name, sample.labels, sample.value)
        for metric in _METRICS
        for family in metric.collect()
        for sample in family.samples
    ]
    return totals_from(samples, model, version)


def totals_from(samples: Iterable[Sample], model: str, version: int) -> Totals:
    """Return the same of what was counted elsewhere."""
    wanted = {"model": model, "version": str(version)}
    answers = failures = rows = predict_s = 0.0
    for name, labels, number in samples:
        if not wanted.items() <= labels.items():
            continue
        if name == "modelyard_inference_requests_total":
            answered = labels["outcome"] == _ANSWERED
            answers, failures = (answers + number, failures) if answered else (answers, failures + number)
        elif name == "modelyard_inference_rows_total":
            rows += number
        elif name == "modelyard_inference_predict_seconds_sum":
            predict_s += number
    return Totals(answers=round(answers), failures=round(failures), rows=round(rows), predict_s=predict_s)
