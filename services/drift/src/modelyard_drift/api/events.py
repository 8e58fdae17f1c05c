"""Prediction events come in here, as JSON or in blocks. Both end in the same batch, checked by the same shape."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from modelyard_contracts.events_v1 import EventBatch, EventReceipt
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE, PredictionBlock
from pydantic import TypeAdapter

from modelyard_drift.api.prediction_blocks import ReadBlocks, read_blocks
from modelyard_drift.api.services import SERVICES, Services

__all__ = ["router"]

_BLOCK = TypeAdapter(PredictionBlock).json_schema()
del _BLOCK["maxItems"]  # what a newer writer added is passed over
_BODY_OF_BLOCKS = {
    "description": "Frames: the name of who sends, and blocks in MessagePack, each rows of one answer. A frame is the "
    "length and the CRC-32C of what it holds, as little-endian unsigned integers of 32 bits, and what it holds. "
    "A timestamp is extension -1.",
    "type": "array",
    "prefixItems": [
        {"title": "Source", "type": "string"},
        {"title": "Blocks", "type": "array", "items": _BLOCK},
    ],
    "minItems": 2,
    "maxItems": 2,
}


class _EventsRoute(APIRoute):
    """A route whose body may be blocks: FastAPI is handed what it would have read from their JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handler = super().get_route_handler()

        async def either(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != BLOCKS_MEDIA_TYPE:
                return await handler(request)
            limit: int = request.app.state.settings.max_body_bytes
            read = read_blocks(await request.body(), max_bytes=limit)
            try:
                return await handler(_AsJson(request, read.document))
            except RequestValidationError as exc:
                raise RequestValidationError(list(_placed(exc.errors(), read))) from exc

        return either


class _AsJson(Request):
    """A request as if its body had been JSON."""

    def __init__(self, request: Request, document: Mapping[str, Any]) -> None:
        others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
        scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
        super().__init__(scope, request.receive)
        self._body = b"{}"  # read already; that it is not empty is all that FastAPI asks
        self._document = document

    async def json(self) -> Any:
        """Return what was read."""
        return self._document


def _placed(errors: Sequence[Any], read: ReadBlocks) -> Iterator[dict[str, Any]]:
    """Yield what is wrong with events as what is wrong with blocks, each field once."""
    seen = set()
    for error in errors:
        place = tuple(error["loc"])
        if place[:2] == ("body", "events") and len(place) > 3:
            _, _, event, field, *within = place
            place = ("body", *read.place(event, field, within))
        if place not in seen:
            seen.add(place)
            yield {**error, "loc": place}


router = APIRouter(prefix="/v1", tags=["log"], route_class=_EventsRoute)


@router.post(
    "/events",
    dependencies=SERVICES,
    openapi_extra={"requestBody": {"content": {BLOCKS_MEDIA_TYPE: {"schema": _BODY_OF_BLOCKS}}}},
)
def take_events(batch: EventBatch, services: Services) -> EventReceipt:
    """Take prediction events; a 2xx means that all accepted ones are committed."""
    receipt = services.ingest(batch)
    services.counted_events(receipt)
    return receipt
