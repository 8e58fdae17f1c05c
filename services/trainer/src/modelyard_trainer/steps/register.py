"""Register: the tracker keeps the bytes, the registry verifies them and judges the Evaluation."""

from __future__ import annotations

from modelyard_bundle.packaging import Packed
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.registry_v1 import RegisterVersionRequest, VersionView

from modelyard_trainer.context import RunContext, patiently

__all__ = ["register"]

_PATIENCE_S = 300.0


def register(context: RunContext, packed: Packed, tracker_run: str, evaluation: Evaluation) -> VersionView:
    """Offer the bundle for governance; repeated until the registry answers, since it is idempotent by digest."""
    request = RegisterVersionRequest(
        digest=str(packed.digest),
        mlflow_run_id=tracker_run,
        artifact_path="bundle",
        run=context.job.run,
        evaluation=evaluation,
    )
    return patiently("registration", lambda: context.registry.register(context.job.model, request), for_s=_PATIENCE_S)
