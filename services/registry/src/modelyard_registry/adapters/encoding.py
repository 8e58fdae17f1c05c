"""Rows to records and back, for what has parts: specs, versions, rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.managed_model_v1alpha1 import AbortRule, ManagedModelSpec
from modelyard_contracts.registry_v1 import Verdict

from modelyard_registry.adapters.tables import ModelRow, PromotionRow, RolloutRow, VersionRow
from modelyard_registry.domain.rollout import Rollout, Step
from modelyard_registry.usecases.records import Model, Promotion, Version

__all__ = ["model_of", "promotion_of", "rollout_of", "rollout_values", "version_of", "version_values"]


def model_of(row: ModelRow) -> Model:
    """Return the model in a row."""
    return Model(
        name=row.name,
        generation=row.generation,
        spec=ManagedModelSpec.model_validate(row.spec),
        written=row.spec,
        spec_digest=row.spec_digest,
        training_digest=row.training_digest,
        created=row.created,
        updated=row.updated,
        deleted=row.deleted,
    )


def version_of(row: VersionRow) -> Version:
    """Return the version in a row."""
    return Version(
        model=row.model,
        number=row.number,
        digest=row.digest,
        state=cast("Any", row.state),
        run=row.run,
        registered=row.registered,
        manifest=BundleManifest.model_validate(row.manifest),
        mlflow_run_id=row.mlflow_run_id,
        artifact_path=row.artifact_path,
        evaluation=Evaluation.model_validate(row.evaluation) if row.evaluation else None,
        verdict=Verdict.model_validate(row.verdict) if row.verdict else None,
        mlflow_version=row.mlflow_version,
        mirrored_state=row.mirrored_state,
    )


def version_values(version: Version) -> dict[str, Any]:
    """Return a version's columns."""
    return {
        "number": version.number,
        "state": version.state,
        "run": version.run,
        "registered": version.registered,
        "manifest": version.manifest.model_dump(mode="json"),
        "evaluation": version.evaluation.model_dump(mode="json") if version.evaluation else None,
        "verdict": version.verdict.model_dump(mode="json") if version.verdict else None,
        "mlflow_run_id": version.mlflow_run_id,
        "artifact_path": version.artifact_path,
        "mlflow_version": version.mlflow_version,
        "mirrored_state": version.mirrored_state,
    }


def promotion_of(row: PromotionRow) -> Promotion:
    """Return the promotion in a row."""
    return Promotion(
        id=row.id,
        model=row.model,
        version=row.version,
        state=cast("Any", row.state),
        reason=row.reason,
        created=row.created,
        kind=cast("Any", row.kind),
        rollout=row.rollout,
    )


def rollout_of(row: RolloutRow) -> Rollout:
    """Return the rollout in a row."""
    return Rollout(
        id=row.id,
        model=row.model,
        candidate=row.candidate,
        previous=row.previous,
        kind=cast("Any", row.kind),
        started=row.started,
        state=cast("Any", row.state),
        reason=row.reason,
        ended=row.ended,
        waiting_for=row.waiting_for,
        steps=tuple(_step(step) for step in row.steps),
        abort_if=tuple(AbortRule.model_validate(rule) for rule in row.abort_if),
        traceparent=row.traceparent,
    )


def rollout_values(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout's columns."""
    return {
        "model": rollout.model,
        "candidate": rollout.candidate,
        "previous": rollout.previous,
        "state": rollout.state,
        "kind": rollout.kind,
        "reason": rollout.reason,
        "started": rollout.started,
        "ended": rollout.ended,
        "waiting_for": rollout.waiting_for,
        "steps": [_step_values(step) for step in rollout.steps],
        "abort_if": [rule.model_dump(mode="json", by_alias=True) for rule in rollout.abort_if],
        "traceparent": rollout.traceparent,
    }


def _step(values: Mapping[str, Any]) -> Step:
    times = {name: datetime.fromisoformat(values[name]) for name in ("started", "ended") if values.get(name)}
    return Step(**{**values, **times})


def _step_values(step: Step) -> dict[str, Any]:
    values = asdict(step)
    for name in ("started", "ended"):
        values[name] = values[name].isoformat() if values[name] else None
    return values
