"""The Open Inference Protocol over gRPC: a real server, a real channel, our own messages."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_talk import Talk, framed
from inference_fakes import Platform, a_platform, a_server, eventually, make_one_feature_bundle
from modelyard_bundle.packaging import Packed
from modelyard_common.auth.authenticator import Authenticator
from modelyard_common.auth.tokens import hash_token
from modelyard_common.bodies import HeldBytes
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.health import Health
from modelyard_common.metrics import GRPC_REQUESTS
from modelyard_common.testing import running
from modelyard_inference.api.bodies import unpacked
from modelyard_inference.api.front import Bounds, Front
from modelyard_inference.api.grpc import calls
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.api.grpc.calls import Call, Method
from modelyard_inference.api.grpc.edge import labels_of
from modelyard_inference.api.grpc.server import GrpcServer
from modelyard_inference.wiring import build

Code = grpc.StatusCode


@dataclass(frozen=True)
class Caller:
    """A channel and what it calls with."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...] = ()

    def __call__(self, name: str, request: Any, *, timeout: float = 10) -> Any:
        answer = getattr(pb, f"{name}Response")
        method = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return method(request, timeout=timeout, metadata=self.metadata)

    def refused(self, name: str, request: Any, **more: Any) -> tuple[grpc.StatusCode, str]:
        """Return the status of a call that must fail, and what it says."""
        with pytest.raises(grpc.RpcError) as caught:
            self(name, request, **more)
        return caught.value.code(), caught.value.details()

    def stream(self, requests: Any) -> Any:
        method = self.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        return method(requests, timeout=20, metadata=self.metadata)

    def health(self, service: str = "") -> int:
        method = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        status: int = method(health_pb2.HealthCheckRequest(service=service), timeout=10).status
        return status


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]
) -> Iterator[tuple[Platform, Caller]]:
    """Give a server that no test changes."""
    with (
        a_platform(tmp_path_factory.mktemp("grpc")) as platform,
        a_server(platform, bundles),
        grpc.insecure_channel(platform.grpc_target) as channel,
    ):
        yield platform, Caller(channel)


def typed(**changes: Any) -> pb.ModelInferRequest:
    """Return a good request of typed contents."""
    tensor, contents = pb.ModelInferRequest.InferInputTensor, pb.InferTensorContents
    return pb.ModelInferRequest(
        model_name="power",
        inputs=[
            tensor(name="load", datatype="FP64", shape=[1], contents=contents(fp64_contents=[0.7])),
            tensor(name="price", datatype="FP32", shape=[1], contents=contents(fp32_contents=[float("nan")])),
            tensor(name="day", datatype="BYTES", shape=[1], contents=contents(bytes_contents=[b"mon"])),
        ],
        **changes,
    )


def raw(**changes: Any) -> pb.ModelInferRequest:
    """Return the same as raw bytes."""
    request = typed(**changes)
    for tensor in request.inputs:
        tensor.ClearField("contents")
    request.raw_input_contents.extend(
        [np.float64([0.7]).tobytes(), np.float32([np.nan]).tobytes(), struct.pack("<I", 3) + b"mon"]
    )
    return request


def counted(method: str, code: str) -> float:
    child: Any = GRPC_REQUESTS.labels(service="inference", method=method, code=code)
    return float(child._value.get())


def test_an_empty_contents_beside_raw_ones_is_nothing(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    request = raw()
    for tensor in request.inputs:
        tensor.contents.SetInParent()

    assert call("ModelInfer", request).model_name == "power"


def parameter(text: str) -> pb.InferParameter:
    return pb.InferParameter(string_param=text)


def test_typed_and_raw_contents_answer_what_rest_answers(shared: tuple[Platform, Caller]) -> None:
    _, call = shared

    by_type, by_bytes = call("ModelInfer", typed(id="mine")), call("ModelInfer", raw())

    assert (by_type.id, by_type.model_name, by_type.model_version) == ("mine", "power", "1")
    assert [output.name for output in by_type.outputs] == ["predict", "predict_proba"]
    assert list(by_type.outputs[0].contents.int64_contents) == [1]
    assert not by_type.raw_output_contents
    labels, chances = by_bytes.raw_output_contents
    assert np.frombuffer(labels, "<i8").tolist() == [1]
    assert np.frombuffer(chances, "<f4").tolist() == pytest.approx(by_type.outputs[1].contents.fp32_contents)
    assert list(by_bytes.outputs[1].shape) == [1, 2]


def test_ids_times_and_keys_travel_with_a_call(shared: tuple[Platform, Caller], bundles: tuple[Packed, Packed]) -> None:
    platform, call = shared
    at = datetime(2026, 1, 2, tzinfo=UTC)

    answer = call(
        "ModelInfer", typed(parameters={"event_time": parameter(at.isoformat()), "routing_key": parameter("k")})
    )

    assert answer.parameters["modelyard-version"].string_param == str(bundles[0].digest)
    prediction = answer.parameters["modelyard-prediction-id"].string_param
    event = eventually(lambda: platform.drift.events.get((f"{prediction}/0", "champion")))
    assert (event["event_time"], event["routing_key"]) == ("2026-01-02T00:00:00Z", "k")
    assert event["features"] == {"load": 0.7, "price": None, "day": "mon"}


def test_metadata_of_a_call_labels_it_too(shared: tuple[Platform, Caller]) -> None:
    platform, call = shared
    labelled = Caller(
        call.channel, (("modelyard-event-time", "2026-01-01T00:00:00+01:00"), ("modelyard-routing-key", "me"))
    )

    answer = labelled("ModelInfer", raw())

    prediction = answer.parameters["modelyard-prediction-id"].string_param
    event = eventually(lambda: platform.drift.events.get((f"{prediction}/0", "champion")))
    assert (event["event_time"], event["routing_key"]) == ("2025-12-31T23:00:00Z", "me")


def test_texts_in_base64_are_read_where_a_tensor_says_so(shared: tuple[Platform, Caller]) -> None:
    platform, call = shared
    request = typed()
    request.inputs[2].contents.bytes_contents[0] = b"TcOkcno="
    request.inputs[2].parameters["content_type"].string_param = "base64"

    prediction = call("ModelInfer", request).parameters["modelyard-prediction-id"].string_param
    event = eventually(lambda: platform.drift.events.get((f"{prediction}/0", "champion")))
    request.inputs[2].parameters["content_type"].string_param = "other"

    assert event["features"]["day"] == "März"
    assert call.refused("ModelInfer", request)[0] == Code.INVALID_ARGUMENT


def test_a_request_that_is_written_otherwise_than_it_says_is_refused(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    request = typed()
    request.parameters["content_type"].string_param = "pd"
    answer = call("ModelInfer", request)
    request.parameters["content_type"].string_param = "base64"

    assert answer.model_name == "power"
    says = "parameters.content_type: 'base64' is not known; there is np, pd, str"
    assert call.refused("ModelInfer", request) == (Code.INVALID_ARGUMENT, says)


def test_parameters_that_rest_takes_are_taken_and_none_changes_how_values_are_written(
    shared: tuple[Platform, Caller],
) -> None:
    _, call = shared
    truth = pb.InferParameter(bool_param=True)
    said = {"binary_data_output": truth, "priority": pb.InferParameter(uint64_param=1), "x": parameter("y")}

    for request in (typed(parameters=said), raw(parameters=said)):
        for binary in (True, False):
            del request.outputs[:]
            output = request.outputs.add(name="predict")
            output.parameters["content_type"].string_param = "np"
            output.parameters["binary_data"].bool_param = binary
            answer = call("ModelInfer", request)
            assert [one.name for one in answer.outputs] == ["predict"]
            assert bool(answer.raw_output_contents) == bool(request.raw_input_contents)


def test_a_routing_key_in_metadata_is_read_as_one_in_a_message() -> None:
    def key(sent: bytes) -> str | None:
        metadata = {b"modelyard-routing-key": sent}
        call = Call(cast(Any, None), 1, Method(cast(Any, None)), metadata, HeldBytes(1).share(), 1)
        return labels_of(call).routing_key

    assert key("Zürich".encode()) == "Zürich"
    with pytest.raises(Invalid, match="modelyard-routing-key: is not UTF-8"):
        key(b"Z\xfcrich")


@pytest.mark.parametrize("version", ["", "1"], ids=["at once", "by a task"])
def test_a_matrix_of_one_column_is_the_one_feature_of_a_model(platform: Platform, tmp_path: Path, version: str) -> None:
    tensor, contents = pb.ModelInferRequest.InferInputTensor, pb.InferTensorContents
    told = {"name": "input-0", "datatype": "FP32", "shape": [2, 1]}
    by_type = [tensor(**told, contents=contents(fp32_contents=[0.7, -0.7]))]
    packed = [np.float32([0.7, -0.7]).tobytes()]
    with (
        a_server(platform, (make_one_feature_bundle(tmp_path / "bundle"),)),
        grpc.insecure_channel(platform.grpc_target) as channel,
    ):
        call, asked = Caller(channel), {"model_name": "power", "model_version": version}
        typed_answer = call("ModelInfer", pb.ModelInferRequest(**asked, inputs=by_type))
        raw_answer = call(
            "ModelInfer", pb.ModelInferRequest(**asked, inputs=[tensor(**told)], raw_input_contents=packed)
        )

    assert list(typed_answer.outputs[0].contents.int64_contents) == [1, 0]
    assert np.frombuffer(raw_answer.raw_output_contents[0], "<i8").tolist() == [1, 0]


@pytest.mark.parametrize("version", ["", "1"], ids=["at once", "by a task"])
def test_ids_follow_an_answer(shared: tuple[Platform, Caller], version: str) -> None:
    _, call = shared
    infer = call.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )

    answer, ended = infer.with_call(
        raw(model_version=version).SerializeToString(), timeout=10, metadata=[("x-request-id", "mine-7")]
    )

    trailers = {pair.key: pair.value for pair in ended.trailing_metadata()}
    assert trailers["x-request-id"] == "mine-7"
    for name in ("modelyard-prediction-id", "modelyard-version"):
        assert trailers[name] == answer.parameters[name].string_param
    assert answer.id == trailers["modelyard-prediction-id"]


@pytest.mark.parametrize("version", ["", "1"], ids=["at once", "by a task"])
def test_a_refusal_names_its_request(shared: tuple[Platform, Caller], version: str) -> None:
    _, call = shared
    infer = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    with pytest.raises(grpc.RpcError) as caught:
        infer(pb.ModelInferRequest(model_name="power", model_version=version).SerializeToString(), timeout=10)

    assert caught.value.code() == Code.INVALID_ARGUMENT
    assert [pair.key for pair in caught.value.trailing_metadata()] == ["x-request-id"]


def test_many_rows_are_answered_in_pieces(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    rows = 9_000
    request = pb.ModelInferRequest(model_name="power")
    for name in ("load", "price"):
        request.inputs.add(name=name, datatype="FP64", shape=[rows])
    request.inputs.add(name="day", datatype="BYTES", shape=[rows])
    request.raw_input_contents.extend([np.full(rows, 0.7).tobytes()] * 2 + [(struct.pack("<I", 3) + b"mon") * rows])

    answer = call("ModelInfer", request, timeout=60)

    assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == [1] * rows
    assert list(answer.outputs[1].shape) == [rows, 2]


def test_only_the_outputs_that_are_asked_for_come(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="predict_proba")]

    answer = call("ModelInfer", raw(outputs=wanted))

    assert [output.name for output in answer.outputs] == ["predict_proba"]
    assert len(answer.raw_output_contents) == 1


@pytest.mark.parametrize("version", ["1", "@champion"])
def test_versions_and_aliases_are_taken(shared: tuple[Platform, Caller], version: str) -> None:
    _, call = shared

    assert call("ModelInfer", typed(model_version=version)).model_version == "1"
    assert call("ModelReady", pb.ModelReadyRequest(name="power", version=version)).ready
    assert call("ModelMetadata", pb.ModelMetadataRequest(name="power", version=version)).versions == ["1"]


def changed(change: Any) -> pb.ModelInferRequest:
    request = raw()
    change(request)
    return request


SECRET = "very-secret-value"
BAD = {
    "nobody": (typed(), lambda r: setattr(r, "model_name", "nobody"), Code.NOT_FOUND, "nobody"),
    "no such version": (raw(), lambda r: setattr(r, "model_version", "9"), Code.NOT_FOUND, "no such version"),
    "no inputs": (typed(), lambda r: r.ClearField("inputs"), Code.INVALID_ARGUMENT, "inputs"),
    "raw and typed": (
        raw(),
        lambda r: r.inputs[0].contents.fp64_contents.append(1),
        Code.INVALID_ARGUMENT,
        "inputs[0].contents",
    ),
    "too few raw": (raw(), lambda r: r.raw_input_contents.pop(), Code.INVALID_ARGUMENT, "raw_input_contents"),
    "raw of a wrong size": (
        raw(),
        lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 7),
        Code.INVALID_ARGUMENT,
        "raw_input_contents[0]",
    ),
    "contents in another field": (
        typed(),
        lambda r: setattr(r.inputs[0], "datatype", "FP32"),
        Code.INVALID_ARGUMENT,
        "fp32_contents",
    ),
    "half floats typed": (typed(), lambda r: setattr(r.inputs[0], "datatype", "FP16"), Code.INVALID_ARGUMENT, "raw"),
    "text not UTF-8": (
        typed(),
        lambda r: r.inputs[2].contents.bytes_contents.__setitem__(0, b"\xff" + SECRET.encode()),
        Code.INVALID_ARGUMENT,
        "UTF-8",
    ),
    "unknown feature": (
        typed(),
        lambda r: setattr(r.inputs[0], "name", "other"),
        Code.INVALID_ARGUMENT,
        "other: is not a feature",
    ),
    "misspelt parameter": (
        typed(),
        lambda r: r.parameters["timout"].MergeFrom(parameter(SECRET)),
        Code.INVALID_ARGUMENT,
        "'timout' is not known; there is timeout",
    ),
    "unknown parameter of an output": (
        typed(),
        lambda r: r.outputs.add(name="predict").parameters["colour"].MergeFrom(parameter(SECRET)),
        Code.INVALID_ARGUMENT,
        "outputs[0].parameters: 'colour' is not known",
    ),
    "parameter of an output of another type": (
        typed(),
        lambda r: r.outputs.add(name="predict").parameters["binary_data"].MergeFrom(parameter(SECRET)),
        Code.INVALID_ARGUMENT,
        "outputs[0].parameters.binary_data: must be true or false",
    ),
    "no time": (
        typed(),
        lambda r: r.parameters["event_time"].MergeFrom(parameter(SECRET)),
        Code.INVALID_ARGUMENT,
        "event_time",
    ),
    "unknown output": (
        typed(),
        lambda r: r.outputs.add(name="magic"),
        Code.INVALID_ARGUMENT,
        "magic",
    ),
}


@pytest.mark.parametrize(("request_", "change", "code", "says"), BAD.values(), ids=BAD.keys())
def test_wrong_calls_are_named_without_their_values(
    shared: tuple[Platform, Caller], request_: Any, change: Any, code: grpc.StatusCode, says: str
) -> None:
    _, call = shared
    request = pb.ModelInferRequest()
    request.CopyFrom(request_)
    change(request)

    found, details = call.refused("ModelInfer", request)

    assert (found, says in details, SECRET in details) == (code, True, False), details


def test_bytes_that_are_no_message_are_the_callers_error(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    method = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    with pytest.raises(grpc.RpcError) as caught:
        method(b"\xff\xff\xff", timeout=10)

    assert caught.value.code() == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_packed_messages_are_answered_as_plain_ones(
    shared: tuple[Platform, Caller], compression: grpc.Compression
) -> None:
    platform, plain = shared
    request = raw(id="packed" * 1000)  # what does not shrink is not packed
    with grpc.insecure_channel(platform.grpc_target, compression=compression) as channel:
        call = Caller(channel)
        answer = call("ModelInfer", request)
        streamed = list(call.stream(iter([request] * 3)))

    expected = plain("ModelInfer", request).raw_output_contents
    assert answer.raw_output_contents == expected
    assert [one.infer_response.raw_output_contents for one in streamed] == [expected] * 3


def test_a_packed_message_is_not_unpacked_beyond_its_bound(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    method = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    with pytest.raises(grpc.RpcError) as caught:
        method(bytes(16 * 1024**2 + 1), timeout=10, compression=grpc.Compression.Gzip)

    assert (caught.value.code(), "once unpacked" in caught.value.details()) == (Code.RESOURCE_EXHAUSTED, True)


@contextmanager
def a_bomb(call: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the future of a call whose message is being unpacked, and is there once this ends."""
    begun, let = threading.Event(), threading.Event()

    def unpack_when_let(body: bytes, encoding: str, most_bytes: int) -> bytes:
        content = unpacked(body, encoding, most_bytes)  # raises for what is more than may be unpacked at once
        begun.set()
        let.wait(20)
        return content

    monkeypatch.setattr(calls, "unpacked", unpack_when_let)
    try:
        method = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        future = method.future(bytes(1024**2), timeout=20, compression=grpc.Compression.Gzip)
        assert begun.wait(10)
        monkeypatch.undo()
        yield future
    finally:
        let.set()


def test_probes_are_answered_while_a_bomb_is_unpacked(
    shared: tuple[Platform, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, call = shared

    with a_bomb(call, monkeypatch) as future:
        for _ in range(3):
            assert call("ServerLive", pb.ServerLiveRequest(), timeout=5).live
            assert call.health() == health_pb2.HealthCheckResponse.SERVING
        assert not future.done()

    assert future.code() == Code.RESOURCE_EXHAUSTED  # as many zeros are as many fields


def test_long_raw_numbers_wait_for_no_other_body(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 9000
    tensor = pb.ModelInferRequest.InferInputTensor(name="load", datatype="FP64", shape=[rows, 1])
    raw_numbers = [np.full(rows, 0.7).tobytes()]
    request = pb.ModelInferRequest(model_name="power", inputs=[tensor], raw_input_contents=raw_numbers)

    with (
        a_server(platform, (make_one_feature_bundle(tmp_path / "one"),)),
        grpc.insecure_channel(platform.grpc_target) as channel,
        a_bomb(Caller(channel), monkeypatch) as future,
    ):
        answer = Caller(channel)("ModelInfer", request)

        assert (answer.outputs[0].shape, future.done()) == ([rows], False)


def test_long_messages_are_read_and_decoded_at_once(
    shared: tuple[Platform, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, call = shared
    taken: list[int] = []
    read_apart = Front.apart

    async def apart(front: Front, *given: Any) -> Any:
        taken.append(front.places.are_left(front.bounds.max_concurrent))
        return await read_apart(front, *given)

    monkeypatch.setattr(Front, "apart", apart)
    call("ModelInfer", typed(id="long" * 20_000))
    assert [one.error_message for one in call.stream(iter([typed(id="long" * 20_000)]))] == [""]

    assert taken == [False, False]  # each has a place


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("inference.GRPCInferenceService/ServerLive", 4 * 1024),
        ("inference.GRPCInferenceService/ServerReady", 4 * 1024),
        ("grpc.health.v1.Health/Check", 4 * 1024),
        ("inference.GRPCInferenceService/RepositoryIndex", 64 * 1024),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 64 * 1024),
    ],
)
def test_only_requests_for_predictions_may_be_long(
    shared: tuple[Platform, Caller], path: str, most: int, compression: grpc.Compression
) -> None:
    _, call = shared
    method = call.channel.stream_stream(f"/{path}")
    # Fields that nobody knows are passed over.
    fits = b"\xfa\x01" + bytes((most - 5 & 0x7F | 0x80, most - 5 >> 7 & 0x7F | 0x80, most - 5 >> 14)) + bytes(most - 5)

    assert len(list(method(iter([fits]), timeout=10, compression=compression))) == 1
    with pytest.raises(grpc.RpcError) as caught:
        list(method(iter([bytes(most + 1)]), timeout=10, compression=compression))

    assert caught.value.code() == Code.RESOURCE_EXHAUSTED


def test_what_cannot_be_unpacked_is_counted_and_names_its_request(shared: tuple[Platform, Caller]) -> None:
    platform, _ = shared
    service, names = "/inference.GRPCInferenceService/", ("ModelInfer", "ServerLive", "ModelStreamInfer")
    before = [counted(name, "INTERNAL") for name in names]

    with Talk(int(platform.grpc_target.rpartition(":")[2])) as talk:
        for name in names:
            stream = talk.call(service + name, grpc_encoding="gzip", x_request_id="mine")
            talk.send(stream, framed(b"not gzip", packed=1))
            if name != "ModelStreamInfer":
                assert (talk.status(stream), talk.end_of(stream)[b"x-request-id"]) == (Code.INTERNAL.value[0], b"mine")
                continue
            assert talk.status(stream) == 0
            told = pb.ModelStreamInferResponse.FromString(talk.body(stream)[5:])
            assert told.error_message == "a message is not gzip"

    assert [counted(name, "INTERNAL") for name in names] == [count + 1 for count in before]


def test_a_stream_answers_in_order_and_outlives_an_error(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    requests = [raw(id="a"), raw(id="b", model_version="9"), typed(id="c")]
    before = counted("ModelStreamInfer", "OK"), counted("ModelStreamInfer", "NOT_FOUND")

    answers = list(call.stream(iter(requests)))

    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert "no such version" in answers[1].error_message
    assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers)
    assert answers[2].infer_response.outputs[0].name == "predict"
    assert (counted("ModelStreamInfer", "OK"), counted("ModelStreamInfer", "NOT_FOUND")) == (
        before[0] + 2,
        before[1] + 1,
    )


def test_the_deadline_of_a_call_is_kept_by_the_engine(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles), grpc.insecure_channel(platform.grpc_target) as channel:
        call = Caller(channel)
        timeout = {"timeout": pb.InferParameter(int64_param=1)}

        code, _ = call.refused("ModelInfer", raw(parameters=timeout))

    assert code == Code.DEADLINE_EXCEEDED


def test_server_and_models_describe_themselves(shared: tuple[Platform, Caller]) -> None:
    _, call = shared

    server = call("ServerMetadata", pb.ServerMetadataRequest())
    model = call("ModelMetadata", pb.ModelMetadataRequest(name="power"))

    assert call("ServerLive", pb.ServerLiveRequest()).live
    assert call("ServerReady", pb.ServerReadyRequest()).ready
    assert server.name == "modelyard-inference" and "model_repository" in server.extensions
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs][2] == ("day", "BYTES", [-1])
    assert not call("ModelReady", pb.ModelReadyRequest(name="nobody")).ready
    assert call.refused("ModelMetadata", pb.ModelMetadataRequest(name="nobody"))[0] == Code.NOT_FOUND


@contextmanager
def with_a_runtime_away(platform: Platform) -> Iterator[None]:
    """Have what runs ``power`` away for as long."""
    assert platform.served is not None
    serving = platform.served.find("power")
    away: Any = SimpleNamespace(predict=None, name="pyfunc", blocking=True, problem="it is started again")
    platform.served.serve(replace(serving, champion=replace(serving.champion, runtime=away)))
    try:
        yield
    finally:
        away.problem = ""


def test_a_model_whose_runtime_is_away_is_ready_in_no_protocol(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    with a_server(platform, bundles) as http, grpc.insecure_channel(platform.grpc_target) as channel:

        def told() -> tuple[set[int], set[bool]]:
            v1 = ("/v1/models/power", "/v1/models/power/versions/1", "/v1/models/power/labels/champion")
            paths = ("/v2/models/power/ready", "/v2/models/power/versions/1/ready", *v1)
            asked = [pb.ModelReadyRequest(name="power", version=version) for version in ("", "1")]
            call = Caller(channel)
            return {http.get(path).status_code for path in paths}, {call("ModelReady", one).ready for one in asked}

        before = told()
        with with_a_runtime_away(platform):
            meanwhile, says = told(), http.get("/v2/models/power/ready")
        after = told()

    assert before == after == ({200}, {True})
    assert meanwhile == ({503}, {False})
    assert (says.headers["retry-after"], "it is started again" in says.json()["error"]) == ("1", True)


def test_a_version_whose_runtime_is_away_is_not_ready_in_the_index(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    with a_server(platform, bundles) as http, grpc.insecure_channel(platform.grpc_target) as channel:

        def told(only_ready: bool) -> list[dict[str, str]]:
            over_http = http.post("/v2/repository/index", json={"ready": only_ready}).json()
            entries = Caller(channel)("RepositoryIndex", pb.RepositoryIndexRequest(ready=only_ready)).models
            fields = ("name", "version", "state", "reason")
            assert [{field: getattr(entry, field) for field in fields} for entry in entries] == over_http
            return list(over_http)

        with with_a_runtime_away(platform):
            meanwhile, ready = told(False), told(True)
        after = told(True)

    version = {"name": "power", "version": "1"}
    assert meanwhile == [version | {"state": "UNAVAILABLE", "reason": "it is started again"}]
    assert ready == []
    assert after == [version | {"state": "READY", "reason": ""}]


@pytest.mark.parametrize("field", ["model_name", "repository_name"], ids=["Triton's numbers", "KServe's numbers"])
def test_models_are_unloaded_and_loaded(platform: Platform, bundles: tuple[Packed, Packed], field: str) -> None:
    with a_server(platform, bundles), grpc.insecure_channel(platform.grpc_target) as channel:
        call = Caller(channel)

        unloaded = call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(**{field: "power"}))
        off = call("RepositoryIndex", pb.RepositoryIndexRequest()).models[0]
        nothing = call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models
        code, _ = call.refused("ModelInfer", typed())
        loaded = call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(**{field: "power"}))
        on = call("RepositoryIndex", pb.RepositoryIndexRequest()).models[0]

    assert (unloaded.isUnloaded, loaded.isLoaded, loaded.model_name) == (True, True, "power")
    assert (off.state, code, list(nothing)) == ("UNAVAILABLE", Code.UNAVAILABLE, [])
    assert (on.name, on.version, on.state) == ("power", "1", "READY")


def test_tokens_are_asked_for_as_over_http(platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{role} {role} {hash_token(role)}\n" for role in ("client", "admin")))
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    with (
        platform.inference(auth="token", tokens_file=tokens) as url,
        httpx.Client(base_url=url, headers={"authorization": "Bearer admin"}, trust_env=False) as http,
        grpc.insecure_channel(platform.grpc_target) as channel,
    ):
        eventually(lambda: http.get("/v2/models/power/ready").status_code == 200)
        nobody, client = Caller(channel), Caller(channel, (("authorization", "Bearer client"),))
        admin = Caller(channel, (("authorization", "Bearer admin"),))

        refused = [
            nobody.refused("ModelInfer", typed())[0],
            nobody.refused("RepositoryIndex", pb.RepositoryIndexRequest())[0],
            nobody.refused("ServerMetadata", pb.ServerMetadataRequest())[0],
            client.refused("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="power"))[0],
        ]
        with pytest.raises(grpc.RpcError) as streamed:
            list(nobody.stream(iter([typed()])))
        answered = client("ModelInfer", typed())
        unloaded = admin("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="power"))

        assert refused == [*[Code.UNAUTHENTICATED] * 3, Code.PERMISSION_DENIED]
        assert streamed.value.code() == Code.UNAUTHENTICATED
        assert (answered.model_name, unloaded.isUnloaded) == ("power", True)
        assert nobody.health() == health_pb2.HealthCheckResponse.SERVING
        assert nobody("ServerLive", pb.ServerLiveRequest()).live


def reflected(call: Caller) -> Any:
    """Return what a client knows by reflection."""
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    return ProtoReflectionDescriptorDatabase(call.channel)


def test_health_knows_its_services_and_reflection_lists_them(shared: tuple[Platform, Caller]) -> None:
    _, call = shared

    services = set(reflected(call).get_services())

    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
    assert call.health("inference.GRPCInferenceService") == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        call.health("other")
    assert caught.value.code() == Code.NOT_FOUND


SYMBOLS = {
    "inference.GRPCInferenceService": "open_inference.proto",
    "inference.GRPCInferenceService.ModelInfer": "open_inference.proto",
    "inference.ModelInferRequest": "open_inference.proto",
    "inference.ModelInferRequest.InferInputTensor": "open_inference.proto",
    "inference.ModelInferRequest.inputs": "open_inference.proto",
    "inference.InferParameter.parameter_choice": "open_inference.proto",
    "grpc.health.v1.Health.Check": "grpc_health/v1/health.proto",
    "grpc.health.v1.HealthCheckResponse.ServingStatus": "grpc_health/v1/health.proto",
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": "grpc_reflection/v1alpha/reflection.proto",
    "grpc.reflection.v1.ServerReflection.ServerReflectionInfo": "grpc_reflection/v1/reflection.proto",
    "grpc.reflection.v1.ServerReflectionResponse.error_response": "grpc_reflection/v1/reflection.proto",
}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_reflection_knows_services_methods_and_messages(shared: tuple[Platform, Caller], symbol: str) -> None:
    known = reflected(shared[1])

    found = known.FindFileContainingSymbol(symbol)

    assert found.name == SYMBOLS[symbol]
    assert known.FindFileByName(found.name) == found


def test_reflection_describes_every_method_that_is_served(shared: tuple[Platform, Caller]) -> None:
    known = reflected(shared[1])
    pool = DescriptorPool(known)

    methods = {
        f"/{service}/{name}"
        for service in known.get_services()
        for name in pool.FindServiceByName(service).methods_by_name
    }
    infer = pool.FindMethodByName("inference.GRPCInferenceService.ModelInfer")

    assert "/inference.GRPCInferenceService/RepositoryModelUnload" in methods and len(methods) > 12
    assert list(infer.input_type.fields_by_name) == list(pb.ModelInferRequest.DESCRIPTOR.fields_by_name)


def test_reflection_answers_by_both_of_its_names(shared: tuple[Platform, Caller]) -> None:
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

    _, call = shared
    pool = DescriptorPool(reflected(call))
    request = ServerReflectionRequest(list_services="")

    def listed(version: str) -> list[str]:
        method = pool.FindMethodByName(f"grpc.reflection.{version}.ServerReflection.ServerReflectionInfo")
        assert [one.full_name for one in (method.input_type, method.output_type)] == [
            f"grpc.reflection.{version}.ServerReflectionRequest",
            f"grpc.reflection.{version}.ServerReflectionResponse",
        ]
        info = call.channel.stream_stream(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        [response] = info(iter([request]), timeout=10)
        return [service.name for service in response.list_services_response.service]

    assert listed("v1") == listed("v1alpha")
    assert {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= set(listed("v1"))


@pytest.mark.parametrize("symbol", ["nobody", "", "inference.GRPCInferenceService.Nobody", "inference.nobody.Nobody"])
def test_reflection_knows_nothing_else(shared: tuple[Platform, Caller], symbol: str) -> None:
    with pytest.raises(KeyError):
        reflected(shared[1]).FindFileContainingSymbol(symbol)


def test_calls_are_counted(shared: tuple[Platform, Caller]) -> None:
    _, call = shared
    before = counted("ModelInfer", "OK"), counted("ModelInfer", "NOT_FOUND")
    call("ModelInfer", typed())
    call.refused("ModelInfer", typed(model_version="9"))

    assert (counted("ModelInfer", "OK"), counted("ModelInfer", "NOT_FOUND")) == (before[0] + 1, before[1] + 1)


def test_a_stop_ends_idle_streams_and_watches(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    may_end = threading.Event()
    with a_server(platform, bundles):
        channel = grpc.insecure_channel(platform.grpc_target)

        def requests() -> Iterator[pb.ModelInferRequest]:
            yield raw(id="first")
            may_end.wait(60)

        stream = Caller(channel).stream(requests())
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(), timeout=60)
        first = next(stream).infer_response.id
        # A server that has just begun may answer before it has settled all that it was told.
        status = next(one.status for one in watch if one.status == health_pb2.HealthCheckResponse.SERVING)
    after = list(stream), [one.status for one in watch]
    may_end.set()
    channel.close()

    assert (first, status, after[0]) == ("first", health_pb2.HealthCheckResponse.SERVING, [])
    assert after[1] in ([], [health_pb2.HealthCheckResponse.NOT_SERVING])


def test_a_taken_port_is_named(platform: Platform) -> None:
    engine = cast(Any, SimpleNamespace(bounds=Bounds(timeout_s=1, max_rows=1, max_concurrent=1), held=HeldBytes(1)))
    nothing = cast(Any, None)

    async def serve_on(port: int) -> None:
        server = GrpcServer(
            engine, nothing, nothing, Health(), nothing, Authenticator(None), host="127.0.0.1", port=port, grace_s=1
        )
        await server.start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="grpc_port"):
            asyncio.run(serve_on(taken.getsockname()[1]))


def test_a_server_that_has_lost_its_grpc_port_is_not_ready(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    app = build(platform.settings())
    with running(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        before = eventually(lambda: (ready := http.get("/health/ready")).status_code == 200 and ready)
        (server,) = app.state.companions
        server._listening.get_loop().call_soon_threadsafe(server._listening.close)
        after = eventually(lambda: (ready := http.get("/health/ready")).status_code == 503 and ready)

    assert before.json()["checks"]["grpc"] == "ok"
    assert after.json()["checks"]["grpc"] == f"127.0.0.1:{server.port} is not listened on any more"


def test_the_stubs_are_what_the_definition_says() -> None:
    from tools.stubs import written

    assert {path.name for path, text in written().items() if path.read_text() != text} == set()
