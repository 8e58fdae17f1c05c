"""The routing table, the watch, and the ledger: what the registry tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from modelyard_common.errors import Invalid, NotFound
from modelyard_common.health import Health
from modelyard_common.pagination import decode_number, encode_cursor
from modelyard_contracts.refs import ModelName
from modelyard_contracts.registry_v1 import LedgerView, RoutingTable, WatchEvent
from starlette.concurrency import run_in_threadpool

from modelyard_registry.api.access import Reading
from modelyard_registry.api.services import Registry, RegistryState, page_limit
from modelyard_registry.usecases.browse import ledger_view

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["routing"])

BATCH = 100
"""Events read at once; more than a registry makes within a second."""


@router.get("/models/{name}/routing", responses={304: {"description": "It is the revision that you have."}})
def routing(
    name: Annotated[ModelName, Path()],
    registry: Registry,
    _: Reading,
    response: Response,
    if_none_match: Annotated[str | None, Header()] = None,
) -> RoutingTable:
    """Show who answers what. The ETag is the revision."""
    with registry.transactions.read() as reader:
        table = reader.routing(name)
    if table is None:
        raise NotFound(f"there is no model {name!r}; apply its manifest first")
    etag = f'"{table.revision}"'
    if if_none_match is not None and etag in {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}:
        return Response(status_code=304, headers={"ETag": etag})  # type: ignore[return-value]
    response.headers["ETag"] = etag
    return table


@router.get("/ledger")
def ledger(
    registry: Registry,
    _: Reading,
    model: Annotated[ModelName | None, Query()] = None,
    cursor: str | None = None,
    limit: int = 100,
) -> LedgerView:
    """Show what was decided, by whom, on which evidence, and whether the whole chain verifies."""
    with registry.transactions.read() as reader:
        view, more = ledger_view(reader, model=model, after=decode_number(cursor) or 0, limit=page_limit(limit))
    return view.model_copy(update={"next_cursor": encode_cursor(more) if more is not None else None})


@router.get("/watch", response_class=StreamingResponse)
async def watch(
    request: Request,
    registry: Registry,
    _: Reading,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Tell of changes as server-sent events; without Last-Event-ID the present routing of all models comes first."""
    if last_event_id is not None and not last_event_id.isdecimal():
        raise Invalid("Last-Event-ID is the number of an event")
    registry.watchers.check()
    told = _tell(request, registry, int(last_event_id) if last_event_id else None)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _tell(request: Request, registry: RegistryState, known: int | None) -> AsyncIterator[str]:
    health: Health = request.app.state.health
    with registry.watchers.subscribe() as subscription:
        yield "retry: 1000\n\n"
        events, position = await run_in_threadpool(_begin, registry, known)
        for event in events:
            yield _encode(event)
        quiet_s = 0.0
        while not (registry.watchers.closed or health.is_draining or await request.is_disconnected()):
            events = await run_in_threadpool(_after, registry, position)
            for event in events:
                yield _encode(event)
                position = event.seq
            if events:
                quiet_s = 0.0
                continue
            if quiet_s >= registry.heartbeat_s:
                yield ": alive\n\n"
                quiet_s = 0.0
            wait_s = min(registry.poll_s, registry.heartbeat_s)
            await subscription.wait(wait_s)
            quiet_s += wait_s


def _begin(registry: RegistryState, known: int | None) -> tuple[Sequence[WatchEvent], int]:
    """Return what a watch is told first, and after which event it goes on.

    The snapshot is in the order of the events that announced each table: whoever breaks off within it and comes
    back with the last id that it saw misses nothing. So does whoever was away for longer than events are kept.
    """
    with registry.transactions.read() as reader:
        oldest, newest = reader.event_span()
        if known is not None and oldest - 1 <= known <= newest:
            return (), known
        return reader.routing_snapshot(), newest


def _after(registry: RegistryState, known: int) -> Sequence[WatchEvent]:
    with registry.transactions.read() as reader:
        return reader.events(known, BATCH)


def _encode(event: WatchEvent) -> str:
    return f"event: {event.kind}\nid: {event.seq}\ndata: {event.model_dump_json()}\n\n"
