"""What surrounds the inference service here: a registry of one model, and a drift that takes every event.

Both are reachable and quick, so that the whole log of payloads is written, read again and sent while it is measured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from modelyard_bundle.manifest import bundle_digest, read_manifest
from modelyard_contracts.events_v1 import EventReceipt
from modelyard_contracts.frames import payloads_in
from modelyard_contracts.pages import Page
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE
from modelyard_contracts.registry_v1 import ModelView, Route, RoutingTable

from bench.inference.names import BUNDLE, LOGGED

__all__ = ["app"]


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]
    """Counted, not read: the load runs on this core too."""


class _Block(msgspec.Struct, array_like=True):
    id: str
    rows: int
    """Counted; what follows is passed over."""


_block_of = msgspec.msgpack.Decoder(_Block).decode


def app() -> FastAPI:
    """Return a registry of one model and a drift that takes every event: what the inference service talks to."""
    app = FastAPI()
    folder = Path(os.environ[BUNDLE])
    manifest = read_manifest(folder)
    digest = str(bundle_digest(manifest))
    champion = Route(number=1, digest=digest)
    logged = float(os.environ.get(LOGGED, "1"))
    table = RoutingTable(model=manifest.model, revision=1, champion=champion, log_payloads=logged)
    view = ModelView(
        name=manifest.model,
        generation=1,
        spec={},
        spec_digest=digest,
        training_digest=digest,
        created=manifest.created,
        updated=manifest.created,
        routing_revision=1,
    )
    taken = 0

    @app.get("/v1/models")
    def models() -> Page[ModelView]:
        return Page[ModelView](items=(view,))

    @app.get("/v1/models/{model}/routing")
    def routing(model: str) -> RoutingTable:
        return table

    @app.get("/v1/models/{model}/versions/{version}/files/{path:path}")
    def file(model: str, version: str, path: str) -> Response:
        return Response((folder / path).read_bytes())

    @app.get("/v1/watch")
    async def watch() -> StreamingResponse:
        return StreamingResponse(_silence(), media_type="text/event-stream")

    @app.post("/v1/models/{model}/runtime-reports", status_code=204)
    def report(model: str) -> None:
        return None

    @app.post("/v1/events")
    async def events(request: Request) -> EventReceipt:
        nonlocal taken
        body = await request.body()
        if request.headers["content-type"] == BLOCKS_MEDIA_TYPE:
            _, *blocks = payloads_in(body)
            count = sum(_block_of(block).rows for block in blocks)
        else:
            count = len(msgspec.json.decode(body, type=_Batch).events)
        taken += count
        return EventReceipt(accepted=count, duplicates=0, last_seq=taken)

    @app.get("/taken")
    def how_many() -> int:
        return taken

    return app


async def _silence() -> AsyncIterator[str]:
    """Yield the heartbeats of a registry in which nothing happens."""
    while True:
        yield ": nothing new\n\n"
        await asyncio.sleep(5)
