"""Dataset versions over HTTP: upload as a stream, look, download. A body goes to the disk, never into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from modelyard_common.errors import Invalid, NotFound, Unavailable
from modelyard_common.pagination import MAX_PAGE, decode_cursor, encode_cursor
from modelyard_contracts.pages import Page
from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import DigestText
from modelyard_contracts.training_v1 import DatasetView
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from modelyard_training.api.services import ANYBODY, WRITERS, Services
from modelyard_training.api.views import dataset_view
from modelyard_training.usecases.version_dataset import Format, Versioned

__all__ = ["router"]

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

PARQUET = "application/vnd.apache.parquet"
_FORMATS: dict[str, Format] = {PARQUET: "parquet", "application/x-parquet": "parquet", "text/csv": "csv"}
_CHUNK_BYTES = 2**20


@router.post("", status_code=201, dependencies=WRITERS)
async def upload_dataset(
    request: Request, response: Response, services: Services, name: Annotated[str, Query(max_length=200)] = ""
) -> DatasetView:
    """Make a dataset version of a Parquet or CSV body; 200 with the version as it is when its rows are known."""
    format = _format(request.headers.get("content-type", ""))
    draft = services.tables.draft()
    try:
        await _receive(request, draft)
        made = await run_in_threadpool(_version, services, draft, format, name)
    finally:
        draft.unlink(missing_ok=True)
    if not made.new:
        response.status_code = 200
    return dataset_view(made.dataset)


@router.get("", dependencies=ANYBODY)
def list_datasets(
    services: Services, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100
) -> Page[DatasetView]:
    """Return dataset versions, newest first."""
    before = decode_cursor(cursor)
    with services.transactions.read() as reader:
        datasets = reader.datasets(before=str(before) if before is not None else None, limit=limit)
    more = encode_cursor(datasets[-1].digest) if len(datasets) == limit else None
    return Page(items=tuple(dataset_view(dataset) for dataset in datasets), next_cursor=more)


@router.get("/{digest}", dependencies=ANYBODY)
def get_dataset(digest: DigestText, services: Services) -> DatasetView:
    """Return a dataset version."""
    with services.transactions.read() as reader:
        dataset = reader.dataset(digest)
    if dataset is None:
        raise NotFound(f"there is no dataset {digest}")
    return dataset_view(dataset)


@router.get("/{digest}/content", dependencies=ANYBODY, response_class=FileResponse)
def download_dataset(digest: DigestText, services: Services) -> FileResponse:
    """Return a dataset version's rows as Parquet."""
    get_dataset(digest, services)
    path = services.tables.path(digest)
    if path is None:
        raise Unavailable(f"the file of dataset {digest} is missing; upload the same rows again to mend that")
    # The digest is over the rows, and the bytes never change: whoever has them has them for good.
    headers = {"etag": f'"{digest}"', "cache-control": "private, max-age=31536000, immutable"}
    return FileResponse(path, media_type=PARQUET, headers=headers)


def _version(services: Services, draft: Path, format: Format, name: str) -> Versioned:
    with services.conversions:
        return services.version_dataset(draft, format=format, name=name)


def _format(content_type: str) -> Format:
    media_type = content_type.partition(";")[0].strip().lower()
    format = _FORMATS.get(media_type)
    if format is None:
        message = f"found {media_type[:80]!r}, allowed: {PARQUET}, text/csv"
        raise Invalid("the body has another format", errors=(FieldError(path="content-type", message=message),))
    return format


async def _receive(request: Request, draft: Path) -> None:
    """Write the body to a file; writing leaves the loop, since a disk may be slow."""
    try:
        handle = await run_in_threadpool(draft.open, "wb")
        try:
            held = bytearray()
            async for chunk in request.stream():
                held += chunk
                if len(held) >= _CHUNK_BYTES:
                    await run_in_threadpool(handle.write, bytes(held))
                    held.clear()
            await run_in_threadpool(handle.write, bytes(held))
        finally:
            await run_in_threadpool(handle.close)
    except ClientDisconnect as exc:
        raise Invalid("the upload broke off") from exc
    except OSError as exc:
        raise Unavailable(f"the upload could not be kept: {exc.strerror}") from exc
