"""Promotions and rollouts by hand: promote, approve, reject, pause, resume, abort, roll back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from modelyard_common.pagination import decode_number, encode_cursor
from modelyard_contracts.pages import Page
from modelyard_contracts.refs import ModelName
from modelyard_contracts.registry_v1 import (
    PromotionRequest,
    PromotionState,
    PromotionView,
    RollbackRequest,
    RolloutCommand,
    RolloutView,
    RuntimeReport,
)

from modelyard_registry.api.access import Reading, Writing
from modelyard_registry.api.idempotency import IdempotencyKey, once
from modelyard_registry.api.services import Registry, page_limit
from modelyard_registry.usecases import command_rollout
from modelyard_registry.usecases import promote as promoting
from modelyard_registry.usecases.act import find_model
from modelyard_registry.usecases.browse import promotion_view, rollout_view
from modelyard_registry.usecases.report_runtime import report_runtime

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["rollouts"])

Name = Annotated[ModelName, Path()]


@router.post("/models/{name}/promotions", status_code=201)
def promote(
    name: Name, request: PromotionRequest, registry: Registry, actor: Writing, idempotency_key: IdempotencyKey = None
) -> PromotionView:
    """Begin a version's rollout by hand; the gates are not asked again."""
    return once(
        registry,
        idempotency_key,
        actor=actor,
        operation=("promote", name),
        request=request,
        answer=PromotionView,
        command=lambda act: promotion_view(promoting.promote(act, name, request)),
    )


@router.get("/models/{name}/promotions")
def promotions(
    name: Name,
    registry: Registry,
    _: Reading,
    state: PromotionState | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[PromotionView]:
    """List promotions, of all states or of one, newest first."""
    count, offset = page_limit(limit), decode_number(cursor) or 0
    with registry.transactions.read() as reader:
        find_model(reader, name)
        found = reader.promotions(name, state=state, offset=offset, limit=count + 1)
    items = tuple(promotion_view(promotion) for promotion in found[:count])
    return Page(items=items, next_cursor=encode_cursor(offset + count) if len(found) > count else None)


@router.post("/promotions/{promotion}/approve")
def approve(promotion: str, registry: Registry, actor: Writing) -> PromotionView:
    """Approve a promotion that waits for a person; its rollout begins."""
    with registry.act(actor) as act:
        return promotion_view(promoting.approve(act, promotion))


@router.post("/promotions/{promotion}/reject")
def reject(promotion: str, registry: Registry, actor: Writing) -> PromotionView:
    """Reject a promotion that waits for a person."""
    with registry.act(actor) as act:
        return promotion_view(promoting.reject(act, promotion))


@router.get("/models/{name}/rollouts")
def rollouts(
    name: Name, registry: Registry, _: Reading, cursor: str | None = None, limit: int = 100
) -> Page[RolloutView]:
    """List rollouts, newest first."""
    count, offset = page_limit(limit), decode_number(cursor) or 0
    with registry.transactions.read() as reader:
        find_model(reader, name)
        found = reader.rollouts(name, offset=offset, limit=count + 1)
    items = tuple(rollout_view(rollout) for rollout in found[:count])
    return Page(items=items, next_cursor=encode_cursor(offset + count) if len(found) > count else None)


@router.post("/models/{name}/rollout/pause")
def pause(name: Name, command: RolloutCommand, registry: Registry, actor: Writing) -> RolloutView:
    """Keep the rollout where it is."""
    with registry.act(actor) as act:
        return rollout_view(command_rollout.pause_rollout(act, name, command.reason))


@router.post("/models/{name}/rollout/resume")
def resume(name: Name, command: RolloutCommand, registry: Registry, actor: Writing) -> RolloutView:
    """Go on with a paused rollout."""
    with registry.act(actor) as act:
        return rollout_view(command_rollout.resume_rollout(act, name, command.reason))


@router.post("/models/{name}/rollout/abort")
def abort(name: Name, command: RolloutCommand, registry: Registry, actor: Writing) -> RolloutView:
    """End the rollout; the champion stays."""
    with registry.act(actor) as act:
        return rollout_view(command_rollout.abort_rollout(act, name, command.reason))


@router.post("/models/{name}/rollback")
def rollback(
    name: Name, request: RollbackRequest, registry: Registry, actor: Writing, idempotency_key: IdempotencyKey = None
) -> RolloutView:
    """Return to the previous champion, or to the version named, at once."""
    return once(
        registry,
        idempotency_key,
        actor=actor,
        operation=("rollback", name),
        request=request,
        answer=RolloutView,
        command=lambda act: rollout_view(promoting.rollback(act, name, request)),
    )


@router.post("/models/{name}/runtime-reports", status_code=204)
def report(name: Name, request: RuntimeReport, registry: Registry, actor: Writing) -> None:
    """Hear from inference that it serves a version, refuses it, or has stopped sending it requests."""
    with registry.act(actor) as act:
        report_runtime(act, name, request)
