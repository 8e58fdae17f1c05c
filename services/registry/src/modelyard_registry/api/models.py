"""Models: apply, plan, show, list and delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from modelyard_common.errors import Invalid
from modelyard_common.pagination import decode_cursor, encode_cursor
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel, ManifestError, parse_manifest
from modelyard_contracts.pages import Page
from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import ModelName
from modelyard_contracts.registry_v1 import ModelView, PlanView

from modelyard_registry.api.access import Reading, Writing
from modelyard_registry.api.services import Registry, page_limit
from modelyard_registry.usecases.act import find_model
from modelyard_registry.usecases.apply_model import apply_model, delete_model
from modelyard_registry.usecases.browse import model_view
from modelyard_registry.usecases.plan_model import plan_model

__all__ = ["router"]

router = APIRouter(prefix="/v1/models", tags=["models"])

Name = Annotated[ModelName, Path()]


@router.put("/{name}")
def apply(
    name: Name, document: Annotated[Any, Body()], registry: Registry, actor: Writing, response: Response
) -> ModelView:
    """Apply a manifest. Idempotent: the generation rises only when the policy changed."""
    manifest = _manifest(name, document)
    with registry.act(actor) as act:
        known = act.store.model(name)
        view = model_view(act.store, apply_model(act, manifest))
    response.status_code = 200 if known else 201
    return view


@router.post("/{name}/plan")
def plan(name: Name, document: Annotated[Any, Body()], registry: Registry, _: Reading) -> PlanView:
    """Tell what applying a manifest would do: which fields change, and what each part of the loop makes of it."""
    manifest = _manifest(name, document)
    with registry.transactions.read() as reader:
        return plan_model(reader, manifest, registry.clock.now())


@router.get("/{name}")
def show(name: Name, registry: Registry, _: Reading) -> ModelView:
    """Show a model: its policy, champion, candidate, contenders, rollout, last verdict."""
    with registry.transactions.read() as reader:
        return model_view(reader, find_model(reader, name))


@router.get("")
def browse(registry: Registry, _: Reading, cursor: str | None = None, limit: int = 100) -> Page[ModelView]:
    """List the models by name."""
    count = page_limit(limit)
    after = str(decode_cursor(cursor)) if cursor else ""
    with registry.transactions.read() as reader:
        found = reader.models(after=after, limit=count + 1)
        items = tuple(model_view(reader, model) for model in found[:count])
    return Page(items=items, next_cursor=encode_cursor(items[-1].name) if len(found) > count else None)


@router.delete("/{name}", status_code=204)
def delete(name: Name, registry: Registry, actor: Writing) -> None:
    """Delete a model; its ledger stays, and with ``deletionPolicy: retain`` its versions too."""
    with registry.act(actor) as act:
        forgotten = delete_model(act, name)
    for digest in forgotten:
        registry.bundles.drop(digest)


def _manifest(name: str, document: Any) -> ManagedModel:
    try:
        manifest = parse_manifest(document)
    except ManifestError as exc:
        raise Invalid("the manifest has wrong fields", errors=exc.errors) from exc
    if manifest.metadata.name != name:
        message = f"found {manifest.metadata.name!r}, but the address says {name!r}"
        raise Invalid("the manifest is of another model", errors=(FieldError(path="metadata.name", message=message),))
    return manifest
