"""Browse: show models, versions, rollouts and the ledger as the API has them."""

from __future__ import annotations

from modelyard_contracts.registry_v1 import (
    LedgerEntry,
    LedgerView,
    ModelView,
    PromotionView,
    RolloutStepView,
    RolloutView,
    VersionSummary,
    VersionView,
)

from modelyard_registry.domain.ledger import Entry, intact
from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases.ports import Reader
from modelyard_registry.usecases.records import Model, Promotion, Version

__all__ = ["ledger_view", "model_view", "promotion_view", "rollout_view", "version_summary", "version_view"]


def model_view(reader: Reader, model: Model) -> ModelView:
    """Return a model with where it stands."""
    latest = reader.rollouts(model.name, limit=1)
    active = latest[0] if latest and latest[0].active else None
    candidate = reader.version(model.name, active.candidate) if active else None
    champion = reader.champion(model.name)
    routing = reader.routing(model.name)
    return ModelView(
        name=model.name,
        generation=model.generation,
        spec=dict(model.written),
        spec_digest=model.spec_digest,
        training_digest=model.training_digest,
        created=model.created,
        updated=model.updated,
        deleted=model.deleted,
        champion=version_summary(champion) if champion else None,
        candidate=version_summary(candidate) if candidate else None,
        contenders=tuple(
            version_summary(version) for version in reader.contenders(model.name, model.spec.rollout.contenders)
        ),
        rollout=rollout_view(latest[0]) if latest else None,
        last_verdict=next((version.verdict for version in reader.versions(model.name, limit=1)), None),
        routing_revision=routing.revision if routing else 0,
    )


def version_summary(version: Version) -> VersionSummary:
    """Return a version as it stands in lists."""
    return VersionSummary(
        model=version.model,
        number=version.number,
        digest=version.digest,
        state=version.state,
        run=version.run,
        registered=version.registered,
        data_until=version.data_until,
        verdict=version.verdict,
    )


def version_view(version: Version) -> VersionView:
    """Return a version with everything that is known of it."""
    return VersionView(
        **dict(version_summary(version)),
        manifest=version.manifest,
        evaluation=version.evaluation,
        mlflow_run_id=version.mlflow_run_id,
        mirrored=version.mlflow_version is not None,
    )


def rollout_view(rollout: Rollout) -> RolloutView:
    """Return a rollout with its steps."""
    return RolloutView(
        id=rollout.id,
        model=rollout.model,
        candidate=rollout.candidate,
        previous=rollout.previous,
        state=rollout.state,
        kind=rollout.kind,
        reason=rollout.reason,
        started=rollout.started,
        ended=rollout.ended,
        waiting_for=rollout.waiting_for,
        steps=tuple(
            RolloutStepView(
                index=step.index,
                shadow=step.shadow,
                weight=step.weight,
                min_requests=step.min_requests,
                revision=step.revision,
                started=step.started,
                ended=step.ended,
                outcome=step.outcome,
                reason=step.reason,
                evidence=dict(step.evidence),
            )
            for step in rollout.steps
        ),
    )


def promotion_view(promotion: Promotion) -> PromotionView:
    """Return a promotion."""
    return PromotionView(
        id=promotion.id,
        model=promotion.model,
        version=promotion.version,
        state=promotion.state,
        reason=promotion.reason,
        created=promotion.created,
        rollout=promotion.rollout,
    )


def ledger_view(reader: Reader, *, model: str | None, after: int, limit: int) -> tuple[LedgerView, int | None]:
    """Return a page of the ledger, and after which entry the next page begins. The whole chain is verified."""
    entries = reader.ledger(model=model, after=after, limit=limit + 1)
    page, more = entries[:limit], len(entries) > limit
    view = LedgerView(items=tuple(_entry(entry) for entry in page), intact=intact(reader.chain(), reader.ledger_head()))
    return view, page[-1].seq if more else None


def _entry(entry: Entry) -> LedgerEntry:
    return LedgerEntry(
        seq=entry.seq,
        at=entry.at,
        actor=entry.actor,
        kind=entry.kind,
        model=entry.model,
        subject=entry.subject,
        body=dict(entry.body),
        previous=entry.previous,
        hash=entry.hash,
    )
