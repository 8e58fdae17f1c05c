"""Candidate against champion within one routing revision: the evidence of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_stats.baseline import build_feature
from modelyard_stats.bins import count_bins
from modelyard_stats.psi import psi

__all__ = ["Reply", "SideFacts", "compare_sides", "side_facts"]

_LEAST_FOR_SHIFT = 50


@dataclass(frozen=True, slots=True)
class Reply:
    """One row of the log, as a comparison needs it."""

    id: str
    version: str
    role: str
    prediction: Any
    score: float | None
    latency_ms: float
    error: bool


@dataclass(frozen=True, slots=True)
class SideFacts:
    """One version in numbers."""

    responses: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    mean_score: float | None


def side_facts(replies: Sequence[Reply]) -> SideFacts:
    """Return one version's responses, errors, latencies and mean score."""
    good = [reply for reply in replies if not reply.error]
    latencies = [reply.latency_ms for reply in good]
    scores = [reply.score for reply in good if reply.score is not None]
    p50, p99 = (float(v) for v in np.quantile(latencies, [0.5, 0.99])) if latencies else (None, None)
    return SideFacts(
        responses=len(good),
        errors=len(replies) - len(good),
        p50_ms=p50,
        p99_ms=p99,
        mean_score=float(np.mean(scores)) if scores else None,
    )


def compare_sides(champion: Sequence[Reply], candidate: Sequence[Reply]) -> tuple[int, float | None, float | None]:
    """Return (pairs, disagreement, prediction shift).

    Pairs are rows that both answered: shadow copies. The shift is PSI between the two versions' scores, or None
    below fifty rows a side.
    """
    answers = {reply.id: reply for reply in champion if not reply.error}
    pairs = [(answers[reply.id], reply) for reply in candidate if not reply.error and reply.id in answers]
    disagreement = None
    if pairs:
        disagreement = sum(str(a.prediction) != str(b.prediction) for a, b in pairs) / len(pairs)
    left = [_watched(reply) for reply in champion if not reply.error]
    right = [_watched(reply) for reply in candidate if not reply.error]
    shift = None
    if min(len(left), len(right)) >= _LEAST_FOR_SHIFT:
        reference = build_feature("prediction", left)
        shift = psi(reference.counts, count_bins(reference, right)) if reference.kind != "constant" else None
    return len(pairs), disagreement, shift


def _watched(reply: Reply) -> Any:
    return reply.prediction if reply.score is None else reply.score
