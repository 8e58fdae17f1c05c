"""Labels come in; and the log as audits and training read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from modelyard_common.pagination import MAX_PAGE, decode_number, encode_cursor
from modelyard_contracts.drift_v1 import LabelBatch, LabelReceipt
from modelyard_contracts.pages import Page
from modelyard_contracts.refs import ModelName
from starlette.background import BackgroundTask

from modelyard_drift.api.services import ANYBODY, LABELLERS, Services

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["log"])


@router.post("/models/{model}/labels", dependencies=LABELLERS)
def take_labels(model: ModelName, batch: LabelBatch, services: Services) -> LabelReceipt:
    """Take labels, all or nothing; a 2xx means committed."""
    receipt = services.ingest_labels(model, batch)
    services.counted_labels(model, receipt)
    return receipt


@router.get("/models/{model}/labelled", dependencies=ANYBODY, response_class=FileResponse)
def get_labelled(
    model: ModelName, services: Services, until: Annotated[int | None, Query(ge=0)] = None
) -> FileResponse:
    """Return answered rows with labels received up to a sequence number, as Parquet, in the order of event time."""
    path = services.export_labelled(model, until)
    return FileResponse(
        path,
        media_type="application/vnd.apache.parquet",
        filename=f"{model}-labelled.parquet",
        background=BackgroundTask(path.unlink, missing_ok=True),
    )


@router.get("/models/{model}/predictions", dependencies=ANYBODY)
def list_predictions(
    model: ModelName,
    services: Services,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = MAX_PAGE,
) -> Page[str]:
    """Return the ids of the answers in the log, in the order of ingest."""
    found = services.browse.prediction_ids(model, after=decode_number(cursor) or 0, limit=limit)
    more = encode_cursor(found[-1][0]) if len(found) == limit else None
    return Page(items=tuple(id_ for _, id_ in found), next_cursor=more)
