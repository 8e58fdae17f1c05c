"""Take a job's report: progress, and at the end its result.

A report is taken once however often it comes; the run's row is locked, so that a report and the supervisor never
decide on different states. Refused: a success without the version that it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from modelyard_common.clock import Clock
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.problem import FieldError
from modelyard_contracts.training_v1 import RunReport

from modelyard_training.domain.ports import Transactions
from modelyard_training.domain.runs import Report, Run, absorb

__all__ = ["TakeReport", "report_from_wire"]


def report_from_wire(wire: RunReport) -> Report:
    """Return the domain's report; raise Invalid when it claims a success without a version."""
    if wire.outcome == "succeeded" and wire.version is None:
        raise Invalid(errors=(FieldError(path="version", message="is required when outcome is succeeded"),))
    document = wire.model_dump(mode="json")
    return Report(
        seq=wire.seq,
        digest=hashlib.sha256(canonical_json(document)).hexdigest(),
        stage=wire.stage,
        progress=wire.progress,
        outcome=wire.outcome,
        reason=wire.reason,
        metrics=wire.metrics,
        version=wire.version,
        mlflow_run_id=wire.mlflow_run_id,
        evaluation=document["evaluation"],
    )


@dataclass(frozen=True, slots=True)
class TakeReport:
    """Applies reports to runs."""

    transactions: Transactions
    clock: Clock
    ended: Callable[[Run], None]
    """Told of every run that a report ended, after the commit."""
    wake: Callable[[], None]

    def __call__(self, run_id: str, wire: RunReport) -> Run:
        """Return the run after a report.

        Raises:
            NotFound: there is no such run.
            Conflict: the run is over, or has not begun.
        """
        report = report_from_wire(wire)
        with self.transactions.write() as store:
            before = store.lock_run(run_id)
            if before is None:
                raise NotFound(f"there is no run {run_id!r}")
            after = absorb(before, report, self.clock.now())
            if after != before:
                store.save_run(after)
        if after.over and not before.over:
            self.ended(after)
            self.wake()
        return after
