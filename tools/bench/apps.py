"""The applications that Modelyard is compared with, and what surrounds its inference service in a benchmark."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from modelyard_bundle.manifest import bundle_digest, read_manifest
from modelyard_bundle.runtimes.sklearn import SKOPS_FILE, load_estimator
from modelyard_contracts.events_v1 import EventReceipt
from modelyard_contracts.pages import Page
from modelyard_contracts.registry_v1 import ModelView, Route, RoutingTable
from pydantic import BaseModel

__all__ = ["BUNDLE", "echo", "plain", "read_outputs", "surroundings"]

BUNDLE = "BENCH_BUNDLE"
"""The environment variable that names the folder of the bundle."""


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send back what was sent: as little as an ASGI application can do, and so the bound of this server."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"".join(parts)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class _Request(BaseModel):
    inputs: list[_Tensor]


def plain() -> FastAPI:
    """Return what people write first: FastAPI, pydantic, and the estimator itself."""
    app = FastAPI()
    estimator = load_estimator(_folder() / SKOPS_FILE)

    @app.get("/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/infer")
    def infer(request: _Request) -> dict[str, Any]:
        row = np.asarray([tensor.data for tensor in request.inputs]).T
        chances = estimator.predict_proba(row)[0]
        label = int(estimator.classes_[chances.argmax()])
        outputs = [
            {"name": "predict", "datatype": "INT64", "shape": [1], "data": [label]},
            {"name": "predict_proba", "datatype": "FP32", "shape": [1, len(chances)], "data": chances.tolist()},
        ]
        return {"model_name": "bench", "outputs": outputs}

    return app


def surroundings() -> FastAPI:
    """Return a registry of one model and a drift that takes every event: what the inference service talks to."""
    app = FastAPI()
    folder = _folder()
    manifest = read_manifest(folder)
    digest = str(bundle_digest(manifest))
    table = RoutingTable(model=manifest.model, revision=1, champion=Route(number=1, digest=digest))
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

    @app.post("/v1/events")
    async def events(batch: dict[str, Any]) -> EventReceipt:
        return EventReceipt(accepted=len(batch["events"]), duplicates=0, last_seq=1)

    return app


async def _silence() -> AsyncIterator[str]:
    """Yield the heartbeats of a registry in which nothing happens."""
    while True:
        yield ": nothing new\n\n"
        await asyncio.sleep(5)


def _folder() -> Path:
    return Path(os.environ[BUNDLE])


def read_outputs(body: bytes) -> dict[str, list[Any]]:
    """Return the outputs of a V2 answer by name."""
    return {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
