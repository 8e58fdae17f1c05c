"""The gRPC service of the Open Inference Protocol: decode, ask the engine, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from grpc.aio import ServicerContext
from modelyard_common import metrics
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.health import Health
from modelyard_common.logs import get_logger

from modelyard_inference.api.codecs import v2_grpc
from modelyard_inference.api.front import Front, Labels
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.api.grpc.edge import answering, labels_of, principal, reader, status_of
from modelyard_inference.api.repository import check_load_parameters, index_of, may_load
from modelyard_inference.api.triton import TotalsOf, config_of, statistics_of
from modelyard_inference.api.v2 import SERVER, metadata_of
from modelyard_inference.domain.ports import Loading
from modelyard_inference.domain.requests import invalid
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["SERVICE", "InferenceServicer"]

SERVICE = "inference.GRPCInferenceService"
_log = get_logger(__name__)
_Call = Callable[[Any, ServicerContext], Awaitable[Message]]


class InferenceServicer:
    """Answers the calls of ``inference.GRPCInferenceService``."""

    def __init__(self, front: Front, served: ServedModels, loading: Loading, health: Health, totals: TotalsOf) -> None:
        self._front = front
        self._served = served
        self._loading = loading
        self._health = health
        self._totals = totals
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the streams once they have answered what they have read."""
        self._closing.set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the table of methods for the server."""
        calls: dict[str, tuple[_Call, type[Message]]] = {
            "ServerLive": (self._live, pb.ServerLiveRequest),
            "ServerReady": (self._ready, pb.ServerReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
            "ModelInfer": (self._infer, pb.ModelInferRequest),
            "ModelConfig": (self._model_config, pb.ModelConfigRequest),
            "ModelStatistics": (self._statistics, pb.ModelStatisticsRequest),
            "RepositoryIndex": (self._index, pb.RepositoryIndexRequest),
            "RepositoryModelLoad": (self._load, pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self._unload, pb.RepositoryModelUnloadRequest),
        }
        table = {
            name: grpc.unary_unary_rpc_method_handler(
                answering(name, call), request_deserializer=reader(kind), response_serializer=_written
            )
            for name, (call, kind) in calls.items()
        }
        table["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, request_deserializer=reader(pb.ModelInferRequest), response_serializer=_written
        )
        return grpc.method_handlers_generic_handler(SERVICE, table)

    async def _live(self, request: pb.ServerLiveRequest, context: ServicerContext) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, request: pb.ServerReadyRequest, context: ServicerContext) -> Message:
        return pb.ServerReadyResponse(ready=self._health.report().ready)

    async def _server_metadata(self, request: pb.ServerMetadataRequest, context: ServicerContext) -> Message:
        return pb.ServerMetadataResponse(name=SERVER.name, version=SERVER.version, extensions=SERVER.extensions)

    async def _model_ready(self, request: pb.ModelReadyRequest, context: ServicerContext) -> Message:
        try:
            serving = self._front.find(request.name)
            if request.version:
                serving.version(request.version)
        except ModelyardError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, context: ServicerContext) -> Message:
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

    async def _model_config(self, request: pb.ModelConfigRequest, context: ServicerContext) -> Message:
        serving = self._front.find(request.name)
        loaded = serving.version(request.version) if request.version else serving.champion
        return ParseDict({"config": config_of(serving, loaded)}, pb.ModelConfigResponse())

    async def _statistics(self, request: pb.ModelStatisticsRequest, context: ServicerContext) -> Message:
        asked = [self._front.find(request.name)] if request.name else self._served.all()
        found = [
            one
            for serving in asked
            for one in statistics_of(
                serving, [serving.version(request.version)] if request.version else serving.loaded, self._totals
            )
        ]
        return ParseDict({"model_stats": found}, pb.ModelStatisticsResponse())

    async def _infer(self, request: pb.ModelInferRequest, context: ServicerContext) -> Message:
        response = await self._answer(request, labels_of(context))
        names = v2_grpc.ANSWER_PARAMETERS
        context.set_trailing_metadata([(name, response.parameters[name].string_param) for name in names])
        return response

    async def _answer(self, request: pb.ModelInferRequest, labels: Labels) -> pb.ModelInferResponse:
        with self._front.places:
            began = time.perf_counter()
            call = v2_grpc.decode(request)
            parsed = time.perf_counter()
            answer = await self._front.ask(
                request.model_name, request.model_version or None, call.rows, call.parameters, labels
            )
            answered = time.perf_counter()
            response = v2_grpc.encode(answer, call)
            self._front.took(answer.model, parsed - began, time.perf_counter() - answered)
            return response

    async def _stream(self, requests: AsyncIterator[Any], context: ServicerContext) -> AsyncIterator[Message]:
        """Answer each request of a stream in its turn; an error is the answer to one of them, and not the end."""
        labels = labels_of(context)
        async for request in _until(self._closing, requests):
            response, code = pb.ModelStreamInferResponse(), grpc.StatusCode.OK
            started = time.perf_counter()
            try:
                if request is None:
                    raise Invalid("the message is not a ModelInferRequest")
                response.infer_response.CopyFrom(await self._answer(request, labels))
            except ModelyardError as exc:
                code = _failed(response, request, exc)
            except Exception as exc:
                # Not the exception itself: its message may hold what somebody sent.
                _log.error("request.broken", kind=type(exc).__name__)
                code = _failed(response, request, ModelyardError("something went wrong here"))
            metrics.GRPC_REQUESTS.labels(service="inference", method="ModelStreamInfer", code=code.name).inc()
            metrics.GRPC_SECONDS.labels(service="inference", method="ModelStreamInfer").observe(
                time.perf_counter() - started
            )
            yield response

    async def _index(self, request: pb.RepositoryIndexRequest, context: ServicerContext) -> Message:
        _refuse_repository(request.repository_name)
        entry = pb.RepositoryIndexResponse.ModelIndex
        found = index_of(self._served, only_ready=request.ready)
        return pb.RepositoryIndexResponse(models=[entry(**one.model_dump()) for one in found])

    async def _load(self, request: pb.RepositoryModelLoadRequest, context: ServicerContext) -> Message:
        may_load(principal.get())
        check_load_parameters(set(request.parameters))
        model = _named(request)
        await asyncio.to_thread(self._loading.load, model)
        return pb.RepositoryModelLoadResponse(model_name=model, isLoaded=True)

    async def _unload(self, request: pb.RepositoryModelUnloadRequest, context: ServicerContext) -> Message:
        may_load(principal.get())
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
        raise invalid("repository_name", "must be empty: there is one repository, the registry")


def _failed(response: pb.ModelStreamInferResponse, request: Any, error: ModelyardError) -> grpc.StatusCode:
    response.error_message = error.message
    response.infer_response.id = request.id if request is not None else ""
    return status_of(error)


def _written(message: Message) -> bytes:
    return message.SerializeToString()


async def _until(closing: asyncio.Event, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield requests until there are no more, or the server closes."""
    ending = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            following = asyncio.ensure_future(anext(requests, _LAST))
            try:
                await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
            if following.cancelled() or not following.done() or (request := following.result()) is _LAST:
                return
            yield request
    finally:
        ending.cancel()


_LAST = object()
