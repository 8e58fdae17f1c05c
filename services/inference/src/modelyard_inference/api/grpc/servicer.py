"""The gRPC service of the Open Inference Protocol: decode, ask the engine, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from modelyard_common import tracing
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.health import Health

from modelyard_inference.api.codecs import v2_grpc
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.codecs.v2 import V2Call
from modelyard_inference.api.described import SERVER, TotalsOf, config_of, index_of, metadata_of, statistics_of
from modelyard_inference.api.front import Front, timed
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.api.grpc.calls import PROBE_BYTES, Call, Method, Pairs
from modelyard_inference.api.grpc.edge import (
    Counts,
    answering,
    enter,
    labels_of,
    our_fault,
    read,
    read_only,
    trailers_of,
)
from modelyard_inference.api.grpc.fields import check_fields, made_bytes
from modelyard_inference.api.grpc.status import StatusCode, status_of
from modelyard_inference.api.loading import check_load_parameters, may_load
from modelyard_inference.domain.ports import Loading
from modelyard_inference.domain.requests import Answer
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["SERVICE", "InferenceServicer"]

SERVICE = "inference.GRPCInferenceService"
_OPEN = ("ServerLive", "ServerReady")
"""Probes carry no token, here as over HTTP."""
_FINAL = "triton_final_response"
"""So Triton marks the last answer to a request of a stream; its clients may wait for it, and here each is the last."""
_Asked = Callable[[Any, Call], Coroutine[Any, Any, Message]]


class InferenceServicer:
    """Answers the calls of ``inference.GRPCInferenceService``."""

    def __init__(self, front: Front, served: ServedModels, loading: Loading, health: Health, totals: TotalsOf) -> None:
        self._front = front
        self._served = served
        self._loading = loading
        self._health = health
        self._totals = totals
        self._infers = Counts("ModelInfer")
        self._streams = Counts("ModelStreamInfer")

    def methods(self) -> Mapping[str, Method]:
        """Return the table of methods for the server, by path."""
        calls: dict[str, tuple[_Asked, type[Message]]] = {
            "ServerLive": (self._live, pb.ServerLiveRequest),
            "ServerReady": (self._ready, pb.ServerReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
            "ModelConfig": (self._model_config, pb.ModelConfigRequest),
            "ModelStatistics": (self._statistics, pb.ModelStatisticsRequest),
            "RepositoryIndex": (self._index, pb.RepositoryIndexRequest),
            "RepositoryModelLoad": (self._load, pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self._unload, pb.RepositoryModelUnloadRequest),
        }
        table = {
            name: Method(answering(name, Counts(name), partial(_one, asked, kind)))
            for name, (asked, kind) in calls.items()
        }
        for name in _OPEN:
            table[name] = replace(table[name], is_open=True, most_bytes=PROBE_BYTES)
        most_bytes = self._front.bounds.max_body_bytes
        infer = answering("ModelInfer", self._infers, self._infer)
        table["ModelInfer"] = Method(infer, self._infer_soon, most_bytes=most_bytes)
        table["ModelStreamInfer"] = Method(self._stream, streams=True, most_bytes=most_bytes)
        return {f"/{SERVICE}/{name}": method for name, method in table.items()}

    async def _live(self, request: pb.ServerLiveRequest, call: Call) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, request: pb.ServerReadyRequest, call: Call) -> Message:
        return pb.ServerReadyResponse(ready=self._health.report().ready)

    async def _server_metadata(self, request: pb.ServerMetadataRequest, call: Call) -> Message:
        return pb.ServerMetadataResponse(name=SERVER.name, version=SERVER.version, extensions=SERVER.extensions)

    async def _model_ready(self, request: pb.ModelReadyRequest, call: Call) -> Message:
        try:
            self._served.check(request.name, request.version or None)
        except ModelyardError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> Message:
        serving = self._front.find(request.name)
        found = metadata_of(serving, serving.version(request.version) if request.version else None)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in found.inputs],
            outputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in found.outputs],
        )

    async def _model_config(self, request: pb.ModelConfigRequest, call: Call) -> Message:
        serving = self._front.find(request.name)
        loaded = serving.version(request.version) if request.version else serving.champion
        return ParseDict({"config": config_of(serving, loaded)}, pb.ModelConfigResponse())

    async def _statistics(self, request: pb.ModelStatisticsRequest, call: Call) -> Message:
        asked = [self._front.find(request.name)] if request.name else self._served.all()
        found = [
            one
            for serving in asked
            for one in statistics_of(
                serving, [serving.version(request.version)] if request.version else serving.loaded, self._totals
            )
        ]
        return ParseDict({"model_stats": found}, pb.ModelStatisticsResponse())

    async def _infer(self, call: Call) -> None:
        answer, content = await self._answer(pb.ModelInferRequest(), call.messages.popleft(), call)
        call.answer(content, _trailers(answer))

    def _infer_soon(self, call: Call) -> bool:
        """Answer a plain call in this turn of the event loop; False leaves it to ``_infer``."""
        message = call.messages[0]
        if tracing.is_recording() or (len(message) > LARGE_BYTES and made_bytes(message) > LARGE_BYTES):
            return False  # what becomes more is read in a thread
        try:
            request = pb.ModelInferRequest.FromString(message)
        except DecodeError:
            return False
        front = self._front
        serving = None if request.model_version else front.plain(request.model_name)
        if serving is None:
            return False
        started = time.perf_counter()
        enter(call)
        asked: V2Call | None = None

        def failed(exc: Exception) -> None:
            error = our_fault(exc)
            code = status_of(error)
            self._infers.add(code, time.perf_counter() - started)
            call.end(code, error.message, trailers_of())

        def told(answer: Answer | Exception) -> None:
            front.places.give_back()
            try:
                if isinstance(answer, Exception):
                    raise answer
                assert asked is not None  # noqa: S101  # or there would be no answer
                began = time.perf_counter()
                content = v2_grpc.encode(answer, asked)
                front.took(answer.model, parsed - started, time.perf_counter() - began)
            except Exception as exc:
                failed(exc)
                return
            self._infers.add(StatusCode.OK, time.perf_counter() - started)
            call.answer(content, _trailers(answer))

        try:
            front.places.take()
        except ModelyardError as exc:
            failed(exc)
            return True
        try:
            asked = v2_grpc.decode(request, front.bounds.max_rows)
            parsed = time.perf_counter()
            labels = labels_of(call)
            if front.ask_soon(serving, asked.rows, asked.parameters, labels, labels.principal, told):
                return True
        except Exception as exc:
            front.places.give_back()
            failed(exc)
            return True
        front.places.give_back()
        return False

    async def _answer(self, request: pb.ModelInferRequest, came: bytes, call: Call) -> tuple[Answer, bytes]:
        """Return an answer and what is sent of it.

        Args:
            request: is filled with the message that came.
        """
        front, labels = self._front, labels_of(call)
        with front.places:
            message = await call.unpacked(came, lambda unpack: front.apart(unpack, labels))
            size = made_bytes(message)
            decode = partial(_decoded, request, message, size, front.bounds.max_rows)
            asked, parse_s = await front.read(partial(timed, decode), size, labels)
            answer = await front.ask(
                request.model_name, request.model_version or None, asked.rows, asked.parameters, labels
            )
            answered = time.perf_counter()
            content = v2_grpc.encode(answer, asked)
            front.took(answer.model, parse_s, time.perf_counter() - answered)
            return answer, content

    async def _stream(self, call: Call) -> None:
        """Answer each request of a stream in its turn; an error is the answer to one of them, and not the end."""
        enter(call)
        while (came := await call.receive()) is not None:
            request, response, code = pb.ModelInferRequest(), pb.ModelStreamInferResponse(), StatusCode.OK
            started = time.perf_counter()
            try:
                _, answered = await self._answer(request, came, call)
                response.infer_response.ParseFromString(answered)
            except Exception as exc:
                error = our_fault(exc)
                code, response.error_message = status_of(error), error.message
                response.infer_response.id = request.id
            response.infer_response.parameters[_FINAL].bool_param = True
            self._streams.add(code, time.perf_counter() - started)
            await call.send(response.SerializeToString())

    async def _index(self, request: pb.RepositoryIndexRequest, call: Call) -> Message:
        _refuse_repository(request.repository_name)
        entry = pb.RepositoryIndexResponse.ModelIndex
        found = index_of(self._served, only_ready=request.ready)
        return pb.RepositoryIndexResponse(models=[entry(**one.model_dump()) for one in found])

    async def _load(self, request: pb.RepositoryModelLoadRequest, call: Call) -> Message:
        may_load(call.principal)
        check_load_parameters(set(request.parameters))
        model = _named(request)
        await asyncio.to_thread(self._loading.load, model)
        return pb.RepositoryModelLoadResponse(model_name=model, isLoaded=True)

    async def _unload(self, request: pb.RepositoryModelUnloadRequest, call: Call) -> Message:
        may_load(call.principal)
        check_load_parameters(set(request.parameters), unload=True)
        model = _named(request)
        await asyncio.to_thread(self._loading.unload, model)
        return pb.RepositoryModelUnloadResponse(model_name=model, isUnloaded=True)


def _named(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """Return the model of a request; KServe writes its name where others write the repository's."""
    if not request.model_name:
        return request.repository_name
    _refuse_repository(request.repository_name)
    return request.model_name


def _refuse_repository(name: str) -> None:
    if name:
        raise Invalid.at("repository_name", "must be empty: there is one repository, the registry")


async def _one(asked: _Asked, kind: type[Message], call: Call) -> None:
    response = await asked(await read_only(kind, call), call)
    call.answer(response.SerializeToString(), trailers_of())


def _decoded(request: pb.ModelInferRequest, message: bytes, size: int, most_rows: int) -> V2Call:
    """Fill a request with a message; return what it asks. Raise Invalid or TooLarge.

    Args:
        size: its ``made_bytes``.
    """
    if size > LARGE_BYTES:
        check_fields(message, most_rows)
    return v2_grpc.decode(read(request, message), most_rows)


def _trailers(answer: Answer) -> Pairs:
    return trailers_of((v2_grpc.PREDICTION_ID, answer.prediction_id), (v2_grpc.VERSION, answer.digest))
