"""The production entry point with one design choice undone, named by BENCH_UNDONE. For ablations only.

What is undone here has no setting, since nobody should want it so.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import modelyard_common.serving
import msgspec
from fastapi import FastAPI, Request, Response
from modelyard_bundle.runtimes import onnx, onnx_rows
from modelyard_common import crowd
from modelyard_common.direct import Learned
from modelyard_common.edge import Edge
from modelyard_common.raw import RawRequest, RawRoute
from modelyard_inference import main as entry
from modelyard_inference import wiring
from modelyard_inference.adapters.event_sender import EventSender
from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.adapters.spool_segments import Segments
from modelyard_inference.api.codecs import v2
from modelyard_inference.api.rest import app as rest_app
from modelyard_inference.domain.requests import plain
from modelyard_inference.usecases import record

from bench.inference.names import UNDONE

__all__ = ["CHOICES", "replace"]


class _Standard:
    """Decodes with the standard library into the shapes of msgspec."""

    def __init__(self, shape: Any) -> None:
        self._shape = shape

    def decode(self, body: bytes) -> Any:
        """Return what a body holds."""
        return msgspec.convert(json.loads(body), self._shape)


def _json() -> None:
    _objects()
    replace(v2, "_DECODER", _Standard(v2._Request))
    replace(v2, "_NUMBERS", _Standard(v2._NumbersRequest))
    replace(v2, "_ENCODE", lambda answer: json.dumps(msgspec.to_builtins(answer, enc_hook=plain)).encode())


def _server(**options: Any) -> None:
    shipped = modelyard_common.serving.uvicorn.Config
    modelyard_common.serving.uvicorn.Config = functools.partial(shipped, **options)  # type: ignore[misc,assignment]


def _route() -> None:
    """Have FastAPI find the way to the same code, with the least that a route can be: a request in, a response out."""
    shipped, shipped_rest = wiring.edge_of, rest_app.rest
    template = "/v2/models/{model}/infer"
    taken: list[RawRoute] = []

    def edge_of(*args: Any, raw_routes: Sequence[RawRoute], **more: Any) -> Edge:
        # Of two with this name the other refuses all methods but POST.
        taken.extend(route for route in raw_routes if route.template == template and route.soon is not None)
        return shipped(*args, raw_routes=[route for route in raw_routes if route.template != template], **more)

    def rest(*args: Any) -> FastAPI:
        app = shipped_rest(*args)
        [infer] = taken

        @app.post(template)
        async def answer(request: Request, model: str) -> Response:
            scope = request.scope
            heads, body = dict(scope["headers"]), await request.body()
            raw = RawRequest(scope["path"], scope["modelyard.principal"], heads, body, request.receive)
            found = await infer.answer(raw)
            assert found is not None  # noqa: S101  # callers here wait for their answers
            extra = {name.decode(): value.decode() for name, value in found.pairs}
            return Response(found.content, found.status, extra, found.media_type.decode())

        # Ahead of the routes that answer for whatever nobody else did.
        app.router.routes.insert(0, app.router.routes.pop())
        return app

    wiring.edge_of = edge_of
    rest_app.rest = rest


def _heads() -> None:
    replace(Learned, "learn", lambda self, raw, head, length: None)


def _apart() -> None:
    replace(Edge, "answer_together", lambda self, heads, bodies, arrived, send: False)


def _look() -> None:
    replace(crowd, "_MOST_LOOKS", 0)


def _table() -> None:
    replace(record, "AnswerTable", ())
    replace(v2, "AnswerTable", ())


def _session() -> None:
    replace(onnx, "linear_row", lambda session, task: None)
    replace(onnx_rows.BoundRow, "of", lambda session, names: None)


def _bound() -> None:
    replace(onnx, "linear_row", lambda session, task: None)


def _task() -> None:
    replace(Edge, "head_of", lambda self, scope: None)


def _objects() -> None:
    replace(v2, "_one_matrix", lambda body, most_rows: None)


def _unlogged() -> None:
    replace(PayloadSpool, "append", lambda self, blocks: None)


def _files() -> None:
    replace(Segments, "emptied", lambda self, number: None)


def _pieces() -> None:
    replace(EventSender, "_sent_as_written", lambda self: False)


def _rows() -> None:
    _pieces()
    replace(EventSender, "_send", lambda self, batch: self._send_rows(payload for payload, _ in batch.payloads))


def replace(owner: Any, name: str, new: Any) -> None:
    """Put something else in a place that there is; a function for one that is called alike. Raises TypeError."""
    if not hasattr(owner, name):
        raise TypeError(f"{owner} has no {name}")
    shipped = getattr(owner, name)
    if inspect.isfunction(new) and (inspect.isfunction(shipped) or inspect.ismethod(shipped)):
        said, wanted = (list(inspect.signature(one).parameters) for one in (new, shipped))
        if said != wanted:
            raise TypeError(f"{owner}.{name} takes {wanted}, and what takes its place {said}")
    setattr(owner, name, new)


CHOICES: Mapping[str, Callable[[], None]] = {
    "json": _json,
    "asyncio": functools.partial(_server, loop="asyncio"),
    "heads": _heads,
    "apart": _apart,
    "look": _look,
    "table": _table,
    "session": _session,
    "bound": _bound,
    "task": _task,
    "route": _route,
    "objects": _objects,
    "files": _files,
    "pieces": _pieces,
    "rows": _rows,
    "unlogged": _unlogged,
}

if __name__ == "__main__":
    CHOICES[os.environ[UNDONE]]()
    entry.main()
