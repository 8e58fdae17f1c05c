"""Whoever hangs up while others are answered leaves the queue, over HTTP and gRPC: no model runs for nobody."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from inference_fakes import Platform, StubRuntime, eventually
from modelyard_bundle.packaging import Packed
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns
from modelyard_common.testing import running
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.wiring import build

INFER = "/v2/models/power/infer"


@dataclass
class Held(StubRuntime):
    """Notes what it is asked, and waits until it is let go."""

    blocking: bool = True
    hold: threading.Event | None = field(default_factory=threading.Event)
    loads: list[list[float]] = field(default_factory=list)

    def predict(self, columns: Columns) -> Predicted:
        self.loads.append(columns["load"].tolist())
        return super().predict(columns)


@dataclass
class Server:
    url: str
    grpc_target: str
    runtime: Held

    def count(self, pattern: str) -> float:
        found = re.search(rf"^{pattern} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture
def held(platform: Platform, bundles: tuple[Packed, Packed]) -> Iterator[Server]:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    app = build(platform.settings(run_patience_s=60))  # a run that takes longer lets the next one begin
    with running(app) as url:
        served, runtime = app.state.inference.served, Held()
        serving = eventually(lambda: served.get("power"))
        served.serve(replace(serving, champion=replace(serving.champion, runtime=runtime)))
        try:
            yield Server(url, f"127.0.0.1:{app.state.companions[0].port}", runtime)
        finally:
            assert runtime.hold is not None
            runtime.hold.set()


def body(load: float) -> bytes:
    inputs = [("load", "FP64", load), ("price", "FP64", 0.5), ("day", "BYTES", "mon")]
    tensors = [{"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, kind, value in inputs]
    return json.dumps({"inputs": tensors}).encode()


def message(load: float) -> bytes:
    request = pb.ModelInferRequest(model_name="power")
    request.inputs.add(name="load", datatype="FP64", shape=[1]).contents.fp64_contents.append(load)
    request.inputs.add(name="price", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.5)
    request.inputs.add(name="day", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"mon")
    return request.SerializeToString()


def ask(server: Server, load: float, statuses: list[int]) -> threading.Thread:
    def post() -> None:
        statuses.append(httpx.post(server.url + INFER, content=body(load), timeout=20).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def post_and_hang_up(server: Server) -> None:
    content = body(0.5)
    before = server.count(GONE)
    with socket.create_connection((urlsplit(server.url).hostname or "", urlsplit(server.url).port or 0)) as caller:
        caller.sendall(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
        eventually(lambda: server.count(r"modelyard_http_requests_in_flight\{service=\"inference\"\}") >= 3)
    eventually(lambda: server.count(GONE) == before + 1)


GONE = (
    r'modelyard_http_requests_total\{method="POST",route="/v2/models/\{model\}/infer",'
    r'service="inference",status="499"\}'
)
"""How callers that hung up are counted."""


def call_and_cancel(server: Server) -> None:
    with grpc.insecure_channel(server.grpc_target) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(message(0.5))
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.3)
        call.cancel()
        # A call that is answered after it shows that the server has heard of it.
        assert channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10)


@pytest.mark.parametrize("hang_up", [post_and_hang_up, call_and_cancel], ids=["http", "grpc"])
def test_who_hangs_up_leaves_the_queue(held: Server, hang_up: object) -> None:
    statuses: list[int] = []
    first = ask(held, 0.25, statuses)
    eventually(lambda: held.runtime.loads)

    hang_up(held)  # type: ignore[operator]
    assert held.runtime.hold is not None
    held.runtime.hold.set()
    first.join(20)
    ask(held, 0.75, statuses).join(20)

    assert statuses == [200, 200]
    assert held.runtime.loads == [[0.25], [0.75]]


def test_how_long_a_run_may_hold_the_next_one_up_is_what_the_settings_say(platform: Platform) -> None:
    app = build(platform.settings(run_patience_s=7))

    with running(app):
        assert app.state.inference.front._predict.champions._limits.patience_s == 7
