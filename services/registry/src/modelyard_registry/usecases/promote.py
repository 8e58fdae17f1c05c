"""Promote by hand: ask for a version to become champion, approve or reject a promotion, roll back."""

from __future__ import annotations

import uuid
from dataclasses import replace

from modelyard_common.errors import Conflict, NotFound
from modelyard_contracts.registry_v1 import PromotionRequest, RollbackRequest

from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act, find_version
from modelyard_registry.usecases.records import Model, Promotion, Version

__all__ = ["approve", "promote", "reject", "rollback"]


def promote(act: Act, name: str, request: PromotionRequest) -> Promotion:
    """Begin a version's rollout because a person asks for it; the gates are not asked again."""
    model = act.lock(name)
    version = find_version(act.store, name, request.version)
    _refuse_if_not_promotable(act, model, version)
    reason = request.reason or f"promoted by {act.actor}"
    rollout = conduct.start(act, model, version, kind="manual", reason=reason, direct=request.direct)
    promotion = Promotion(
        id=uuid.uuid4().hex,
        model=name,
        version=version.digest,
        state="approved",
        reason=reason,
        created=act.now,
        rollout=rollout.id,
    )
    act.store.save_promotion(promotion)
    act.record("promotion.approved", name, promotion.id, version=version.digest, reason=reason, direct=request.direct)
    return promotion


def approve(act: Act, promotion_id: str) -> Promotion:
    """Begin the rollout that waited for approval. Approving twice changes nothing."""
    promotion, model = _locked(act, promotion_id)
    if promotion.state != "pending":
        return _repeated(promotion, "approved")
    version = find_version(act.store, model.name, promotion.version)
    _refuse_if_not_promotable(act, model, version)
    kind = promotion.kind
    rollout = conduct.start(act, model, version, kind=kind, reason=f"approved by {act.actor}: {promotion.reason}")
    decided = replace(promotion, state="approved", rollout=rollout.id)
    act.store.save_promotion(decided)
    act.record("promotion.approved", model.name, promotion.id, version=version.digest)
    return decided


def reject(act: Act, promotion_id: str) -> Promotion:
    """Decide that the version does not become champion. Rejecting twice changes nothing."""
    promotion, model = _locked(act, promotion_id)
    if promotion.state != "pending":
        return _repeated(promotion, "rejected")
    version = find_version(act.store, model.name, promotion.version)
    if version.state == "registered":
        act.store.save_version(replace(version, state="refused"))
    decided = replace(promotion, state="rejected")
    act.store.save_promotion(decided)
    act.record("promotion.rejected", model.name, promotion.id, version=version.digest)
    act.touch(model.name)
    return decided


def rollback(act: Act, name: str, request: RollbackRequest) -> Rollout:
    """Return to the previous champion, or to the version named, at once and without steps."""
    model = act.lock(name)
    champion = act.store.champion(name)
    target = find_version(act.store, name, request.to) if request.to is not None else _previous(act, name, champion)
    _refuse_if_not_promotable(act, model, target)
    reason = request.reason or f"rolled back by {act.actor}"
    return conduct.start(act, model, target, kind="rollback", reason=reason, direct=True)


def _previous(act: Act, name: str, champion: Version | None) -> Version:
    """Return the newest former champion that nobody has judged unfit since."""
    for reign in act.store.reigns(name):
        version = act.store.version(name, reign.digest)
        if version is not None and version.state == "retired" and version != champion:
            return version
    raise Conflict(f"model {name!r} has no previous champion to return to")


def _refuse_if_not_promotable(act: Act, model: Model, version: Version) -> None:
    pinned = model.spec.rollout.version
    if pinned is not None and pinned != version.digest:
        raise Conflict(f"the manifest pins {pinned}; change spec.rollout.version to serve another")
    if version.state == "champion":
        raise Conflict(f"{version.name} is champion already")


def _locked(act: Act, promotion_id: str) -> tuple[Promotion, Model]:
    promotion = act.store.promotion(promotion_id)
    if promotion is None:
        raise NotFound(f"there is no promotion {promotion_id[:80]!r}")
    model = act.lock(promotion.model)
    # Read again under the lock: somebody else may have decided in between.
    return act.store.promotion(promotion_id) or promotion, model


def _repeated(promotion: Promotion, asked: str) -> Promotion:
    if promotion.state != asked:
        raise Conflict(f"this promotion was {promotion.state} already")
    return promotion
