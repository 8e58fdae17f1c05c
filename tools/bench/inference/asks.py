"""The same rows in the words of each protocol, and the labels out of each answer."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from numpy.typing import NDArray

from bench.inference.names import MODEL

__all__ = [
    "Ask",
    "Message",
    "answer_of",
    "bento",
    "binary",
    "echo",
    "framed",
    "grpc_raw",
    "json_v2",
    "scoring",
]

_TIMEOUT_S = 30.0
_GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Message:
    """A body and the headers that go with it."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True, slots=True)
class Ask:
    """How one server is asked in one protocol.

    Attributes:
        write: makes the message that asks for some rows.
        read: returns the labels of an answer; takes its body and its headers.
        predicts: there are labels to be compared.
    """

    path: str
    write: Callable[[NDArray[np.float32]], Message]
    read: Callable[[bytes, Mapping[str, str]], Sequence[int]]
    grpc: bool = False
    predicts: bool = True


def answer_of(ask: Ask, port: int, message: Message) -> tuple[bytes, Mapping[str, str]]:
    """Return what a server answers. Raise OSError when that is an error, or nothing."""
    if ask.grpc:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                return channel.unary_unary(ask.path)(message.body, timeout=_TIMEOUT_S), {}
            except grpc.RpcError as exc:
                raise OSError(str(exc)) from exc
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", ask.path, message.body, dict(message.headers))
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as exc:
        raise OSError(f"{type(exc).__name__}: {exc}") from exc
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"HTTP {answer.status}: {body.decode(errors='replace')[:500]}")
    return body, {name.lower(): value for name, value in answer.getheaders()}


def json_v2() -> Ask:
    """Return how the Open Inference Protocol is spoken in JSON: one matrix of all rows."""
    return Ask(f"/v2/models/{MODEL}/infer", _write_json, _read_v2)


def binary() -> Ask:
    """Return how it is spoken with tensors as raw bytes, both ways."""
    return Ask(f"/v2/models/{MODEL}/infer", _write_binary, _read_v2)


def grpc_raw() -> Ask:
    """Return how it is spoken over gRPC, with raw contents."""
    return Ask(_GRPC_PATH, _write_grpc, _read_grpc, grpc=True)


def scoring(path: str, features: Sequence[str]) -> Ask:
    """Return how MLflow's scoring protocol is spoken."""

    def write(rows: NDArray[np.float32]) -> Message:
        return Message(json.dumps({"dataframe_split": {"columns": list(features), "data": _numbers(rows)}}).encode())

    return Ask(path, write, lambda body, headers: [int(label) for label in json.loads(body)["predictions"]])


def bento() -> Ask:
    """Return how BentoML's own protocol is spoken: an array by the name of the argument."""
    return Ask(
        "/predict",
        lambda rows: Message(json.dumps({"rows": _numbers(rows)}).encode()),
        lambda body, headers: [int(label) for label in json.loads(body)],
    )


def echo() -> Ask:
    """Return how the empty application is asked. What it sends back is the question; there is nothing to check."""
    return Ask("/", _write_json, lambda body, headers: [], predicts=False)


def _numbers(rows: NDArray[np.float32]) -> list[list[float]]:
    # As people write them: the shortest text that is this float32 again, 17.99 and not 17.989999771118164.
    return [[float(str(value)) for value in row] for row in rows]


def _write_json(rows: NDArray[np.float32]) -> Message:
    data = [value for row in _numbers(rows) for value in row]
    tensor = {"name": "rows", "shape": list(rows.shape), "datatype": "FP64", "data": data}
    return Message(json.dumps({"inputs": [tensor]}).encode())


def _write_binary(rows: NDArray[np.float32]) -> Message:
    content = rows.tobytes()
    size = {"binary_data_size": len(content)}
    tensor = {"name": "rows", "shape": list(rows.shape), "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Message(head + content, {"content-type": "application/octet-stream", _LENGTH: str(len(head))})


def _write_grpc(rows: NDArray[np.float32]) -> Message:
    tensor = pb.ModelInferRequest.InferInputTensor(name="rows", datatype="FP32", shape=rows.shape)
    request = pb.ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=[rows.tobytes()])
    return Message(request.SerializeToString(), {"content-type": "application/grpc", "te": "trailers"})


def framed(message: bytes) -> bytes:
    """Return a gRPC message as it travels: not compressed, with its length ahead."""
    return struct.pack(">BI", 0, len(message)) + message


def _read_v2(body: bytes, headers: Mapping[str, str]) -> list[int]:
    length = int(headers.get(_LENGTH) or len(body))
    outputs, place = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = np.ravel(output["data"]).tolist()
        else:
            outputs[output["name"]] = _unpacked(output["datatype"], body[place : place + size])
            place += size
    return [int(label) for label in _labels(outputs)]


def _read_grpc(body: bytes, headers: Mapping[str, str]) -> list[int]:
    answer = pb.ModelInferResponse.FromString(body)
    outputs: dict[str, list[Any]] = {}
    for place, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            outputs[output.name] = _unpacked(output.datatype, answer.raw_output_contents[place])
        else:
            contents = output.contents
            outputs[output.name] = [*contents.int64_contents, *contents.int_contents, *contents.fp64_contents]
    return [int(label) for label in _labels(outputs)]


def _labels(outputs: Mapping[str, list[Any]]) -> list[Any]:
    """Return the labels: the output that is called so, else the only one there is."""
    return outputs["predict"] if "predict" in outputs else next(iter(outputs.values()))


def _unpacked(datatype: str, content: bytes) -> list[Any]:
    kinds = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
    values: list[Any] = np.frombuffer(content, kinds[datatype]).tolist()
    return values
