"""Rollout evidence from the drift service."""

from __future__ import annotations

from modelyard_client.drift import DriftClient
from modelyard_contracts import drift_v1 as wire

from modelyard_registry.domain.signals import Comparison, Side

__all__ = ["DriftEvidence"]


class DriftEvidence:
    """Implements the use cases' ``EvidenceSource`` on drift's comparison."""

    def __init__(self, drift: DriftClient) -> None:
        self._drift = drift

    def comparison(self, model: str, revision: int) -> Comparison:
        """Return candidate and champion within one routing revision."""
        found = self._drift.comparison(model, revision)
        return Comparison(
            revision=found.revision,
            champion=_side(found.champion),
            candidate=_side(found.candidate),
            pairs=found.pairs,
            disagreement=found.disagreement,
            prediction_shift=found.prediction_shift,
        )


def _side(side: wire.Side | None) -> Side | None:
    if side is None:
        return None
    return Side(
        version=side.version,
        responses=side.responses,
        errors=side.errors,
        p50_ms=side.p50_ms,
        p99_ms=side.p99_ms,
        performance=side.performance.value if side.performance else None,
        performance_rows=side.performance.rows if side.performance else 0,
    )
