"""The Evaluation record: candidate, champion and eligible predecessors scored on the same rows in one run."""

from __future__ import annotations

from typing import Literal

from modelyard_contracts.base import UtcTime, View
from modelyard_contracts.refs import DigestText

__all__ = ["Evaluation", "MetricValue", "Score"]


class MetricValue(View):
    """A metric with its 95 % interval (bootstrap over rows)."""

    value: float
    low: float
    high: float


class Score(View):
    """How one version did on the judged rows."""

    digest: DigestText
    role: Literal["candidate", "champion", "contender"]
    data_until: UtcTime | None = None
    metrics: dict[str, MetricValue]


class Evaluation(View):
    """Who was scored on which rows, with what result."""

    run: str
    kind: Literal["test", "fresh"]
    """``test``: the split of a first run. ``fresh``: the newest labelled rows, unseen by all that are scored."""
    rows: int
    rows_digest: DigestText
    rows_from: UtcTime | None = None
    rows_until: UtcTime | None = None
    scores: tuple[Score, ...]
    skipped: dict[str, str] = {}
    """Versions that were not scored, each with the reason."""
    insufficient: str | None = None
    """Set when there were too few fresh rows; says how many there were and how many it takes."""
