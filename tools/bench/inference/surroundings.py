"""What surrounds the inference service here: a registry of one model, and a drift that takes every event.

Both are reachable and quick, so that the whole log of payloads is written, read again and sent while it is measured.
What takes the log does without a framework, and looks at no sum: the load runs on this core too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from modelyard_bundle.manifest import bundle_digest, read_manifest
from modelyard_contracts.events_v1 import EventReceipt
from modelyard_contracts.frames import FRAME_HEAD
from modelyard_contracts.pages import Page
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE
from modelyard_contracts.registry_v1 import ModelView, Route, RoutingTable

from bench.inference.names import BUNDLE, LOGGED

__all__ = ["app"]


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]
    """Counted, not read."""


class _Block(msgspec.Struct, array_like=True):
    id: str
    rows: int
    """Counted; what follows is passed over."""


_block_of = msgspec.msgpack.Decoder(_Block).decode


class _Drift:
    """Takes every event, and leaves all else to an application."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._taken = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/v1/events", "/taken"):
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/taken":
            await _answer(send, msgspec.json.encode(self._taken))
            return
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        if dict(scope["headers"])[b"content-type"] == BLOCKS_MEDIA_TYPE.encode():
            count = sum(_rows_in(body))
        else:
            count = len(msgspec.json.decode(body, type=_Batch).events)
        self._taken += count
        receipt = EventReceipt(accepted=count, duplicates=0, last_seq=self._taken)
        await _answer(send, receipt.model_dump_json().encode())


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _rows_in(body: bytes) -> Iterator[int]:
    """Yield how many rows each block has; the first frame holds the sender's name."""
    view, offset, is_name = memoryview(body), 0, True
    while offset < len(body):
        length, _ = FRAME_HEAD.unpack_from(body, offset)
        start = offset + FRAME_HEAD.size
        offset = start + length
        if not is_name:
            yield _block_of(view[start:offset]).rows
        is_name = False


def app() -> _Drift:
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

    return _Drift(app)


async def _silence() -> AsyncIterator[str]:
    """Yield the heartbeats of a registry in which nothing happens."""
    while True:
        yield ": nothing new\n\n"
        await asyncio.sleep(5)
