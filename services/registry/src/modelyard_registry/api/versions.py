"""Versions: offer a bundle, list and show versions, serve their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from fastapi.responses import StreamingResponse
from modelyard_common.pagination import decode_number, encode_cursor
from modelyard_contracts.pages import Page
from modelyard_contracts.refs import ModelName
from modelyard_contracts.registry_v1 import RegisterVersionRequest, VersionSummary, VersionView

from modelyard_registry.api.access import Reading, Writing
from modelyard_registry.api.metrics import REGISTER_SECONDS, VERDICTS
from modelyard_registry.api.services import Registry, page_limit
from modelyard_registry.usecases.act import find_model, find_version
from modelyard_registry.usecases.browse import version_summary, version_view

__all__ = ["router"]

router = APIRouter(prefix="/v1/models/{name}/versions", tags=["versions"])

Name = Annotated[ModelName, Path()]


@router.post("", status_code=201, responses={200: {"model": VersionView}})
def register(
    name: Name, request: RegisterVersionRequest, registry: Registry, actor: Writing, response: Response
) -> VersionView:
    """Offer a bundle for governance: every byte is verified, then it is judged. Idempotent by digest."""
    with REGISTER_SECONDS.time():
        version, new = registry.register_version(name, request, actor=actor)
    if not new:
        response.status_code = 200
    elif version.verdict is not None:
        VERDICTS.labels(name, version.verdict.decision).inc()
    return version_view(version)


@router.get("")
def browse(
    name: Name, registry: Registry, _: Reading, cursor: str | None = None, limit: int = 100
) -> Page[VersionSummary]:
    """List a model's versions, newest first."""
    count = page_limit(limit)
    before = decode_number(cursor)
    with registry.transactions.read() as reader:
        find_model(reader, name)
        found = reader.versions(name, before=before, limit=count + 1)
    items = tuple(version_summary(version) for version in found[:count])
    return Page(items=items, next_cursor=encode_cursor(items[-1].number) if len(found) > count else None)


@router.get("/{ref}")
def show(name: Name, ref: str, registry: Registry, _: Reading) -> VersionView:
    """Show one version, named by its number or its digest."""
    with registry.transactions.read() as reader:
        find_model(reader, name)
        return version_view(find_version(reader, name, ref))


@router.get("/{ref}/files/{path:path}", response_class=StreamingResponse)
def file(
    name: Name,
    ref: str,
    path: str,
    registry: Registry,
    _: Reading,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Serve one file of a bundle from the verified cache, also while MLflow is down."""
    with registry.transactions.read() as reader:
        find_model(reader, name)
        version = find_version(reader, name, ref)
    found = registry.bundles.open(version, path)
    headers = {"ETag": f'"{found.digest}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    headers |= {"Content-Length": str(found.size_bytes), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(found.chunks(), media_type="application/octet-stream", headers=headers)
