"""Compare candidate and champion within one routing revision: what the registry asks before each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard_common.errors import NotFound
from modelyard_contracts.drift_v1 import Comparison, PerformanceView, Side
from modelyard_contracts.metrics_v1 import METRICS_BY_TASK

from modelyard_drift.domain.comparing import Reply, compare_sides, side_facts
from modelyard_drift.domain.performance import Answered, by_version
from modelyard_drift.usecases.ports import Policy, Transactions
from modelyard_drift.usecases.views import performance_view

__all__ = ["Compare"]

_NEWEST = 20_000
"""Rows that are compared at most; the newest ones."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Reads the log of one revision."""

    transactions: Transactions

    def __call__(self, model: str, revision: int) -> Comparison:
        """Return the comparison. Raise NotFound when nothing ever came from this model."""
        with self.transactions.read() as store:
            log, policy = store.log(model), store.policy(model)
            if log is None:
                raise NotFound(f"drift has seen no answers of {model!r} yet")
            replies = store.replies(model, revision, limit=_NEWEST)
            answered = store.answered_in(model, revision)
        champion = [reply for reply in replies if reply.role == "champion"]
        candidate = [reply for reply in replies if reply.role in ("candidate", "shadow")]
        pairs, disagreement, shift = compare_sides(champion, candidate)
        return Comparison(
            model=model,
            revision=revision,
            champion=_side(champion, answered, policy),
            candidate=_side(candidate, answered, policy),
            shadow=any(reply.role == "shadow" for reply in candidate),
            pairs=pairs,
            disagreement=disagreement,
            prediction_shift=shift,
            as_of_seq=log.seq,
        )


def _side(replies: Sequence[Reply], answered: Sequence[Answered], policy: Policy | None) -> Side | None:
    if not replies:
        return None
    version = replies[0].version
    facts = side_facts([reply for reply in replies if reply.version == version])
    mine = [row for row in answered if row.version == version]
    return Side(
        version=version,
        responses=facts.responses,
        errors=facts.errors,
        p50_ms=facts.p50_ms,
        p99_ms=facts.p99_ms,
        mean_score=facts.mean_score,
        performance=_performance(version, mine, policy),
    )


def _performance(version: str, rows: Sequence[Answered], policy: Policy | None) -> PerformanceView | None:
    if policy is None or not rows:
        return None
    spec = policy.spec
    metric = spec.monitor.performance.metric if spec.monitor.performance else METRICS_BY_TASK[spec.task][0]
    found = [entry for entry in by_version(metric, rows, positive=spec.data.positive_class) if entry.version == version]
    return performance_view(found[0], everybody=version) if found else None
