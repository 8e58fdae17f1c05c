"""The gRPC side of the real process: what is in flight at SIGTERM is finished, and probes hear of the drain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import grpc
import httpx
from grpc_health.v1 import health_pb2
from inference_fakes import Platform, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.testing import free_port_base
from modelyard_inference.api.grpc import open_inference_pb2 as pb

DAY = pb.InferTensorContents(bytes_contents=[b"mon"])
LOAD = pb.InferTensorContents(fp64_contents=[0.7])
REQUEST = pb.ModelInferRequest(
    model_name="power",
    inputs=[
        pb.ModelInferRequest.InferInputTensor(name="load", datatype="FP64", shape=[1], contents=LOAD),
        pb.ModelInferRequest.InferInputTensor(name="day", datatype="BYTES", shape=[1], contents=DAY),
    ],
)


def test_sigterm_drains_grpc_as_it_drains_http(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    base = free_port_base(2)
    ports = {"PORT": base, "GRPC_PORT": base + 1}
    settings = {"REGISTRY_URL": platform.registry_url, "DRIFT_URL": platform.drift_url, "DRAIN_S": 4} | ports
    environment = os.environ | {f"MODELYARD_INFERENCE_{name}": str(value) for name, value in settings.items()}
    environment |= {"MODELYARD_INFERENCE_DATA_DIR": str(platform.data_dir)}
    server = subprocess.Popen(
        [sys.executable, "-m", "modelyard_inference.main"], env=environment, stderr=subprocess.DEVNULL
    )
    channel = grpc.insecure_channel(f"127.0.0.1:{ports['GRPC_PORT']}")
    eventually(lambda: is_ready(ports["PORT"]), 30)
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(), timeout=60)
    answered: list[str] = []
    ends: list[grpc.StatusCode] = []

    def load() -> None:
        try:
            while True:
                answered.append(infer(REQUEST, timeout=10).parameters["modelyard-prediction-id"].string_param)
        except grpc.RpcError as exc:
            ends.append(exc.code())

    caller = threading.Thread(target=load)
    caller.start()
    eventually(lambda: len(answered) > 50)
    statuses = [next(watch).status]
    server.send_signal(signal.SIGTERM)
    statuses.append(next(watch).status)
    before = len(answered)
    eventually(lambda: len(answered) > before)

    assert server.wait(20) == 0
    caller.join(15)
    channel.close()
    assert statuses == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    # A call that came after the drain window was not begun: the library says either.
    assert len(ends) == 1 and ends[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert {f"{one}/0" for one in answered} <= {event["id"] for event in platform.drift.role("champion")}


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/models/power/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
