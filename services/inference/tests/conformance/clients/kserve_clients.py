"""``kserve``'s InferenceRESTClient and InferenceGRPCClient; the third argument says which."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import kserve
import numpy as np
from harness import Stage, expect, run
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig

ROW = {"load": 0.7, "price": 0.2, "day": "mon"}


def request(*, binary: bool = False) -> Any:
    given = [("load", np.array([0.7]), "FP64"), ("price", np.array([0.2]), "FP64"), ("day", np.array(["mon"]), "BYTES")]
    tensors = []
    for name, values, datatype in given:
        tensor = kserve.InferInput(name=name, shape=[1], datatype=datatype)
        tensor.set_data_from_numpy(values.astype(object) if datatype == "BYTES" else values, binary_data=binary)
        tensors.append(tensor)
    return kserve.InferRequest(model_name="power", request_id="mine", infer_inputs=tensors)


def expect_one(response: Any) -> None:
    expect(response.id == "mine", response)
    expect(np.asarray(response.outputs[0].as_numpy()).tolist() == [1], response)


def rest(stage: Stage, protocol: str, call: Callable[[Any], Awaitable[Any]]) -> Any:
    async def play() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol=protocol, retries=0)) as client:
            return await call(client)

    return asyncio.run(play())


def grpc(stage: Stage, call: Callable[[Any], Awaitable[Any]]) -> Any:
    async def play() -> Any:
        async with InferenceGRPCClient(stage.grpc) as client:
            return await call(client)

    return asyncio.run(play())


def V1_is_server_live(stage: Stage) -> None:
    expect(rest(stage, "v1", lambda client: client.is_server_live(stage.url)))


def V1_is_model_ready(stage: Stage) -> None:
    expect(rest(stage, "v1", lambda client: client.is_model_ready(stage.url, "power")))


def V1_infer(stage: Stage) -> None:
    answer = rest(stage, "v1", lambda client: client.infer(stage.url, {"instances": [ROW, ROW]}, model_name="power"))
    expect(answer == {"predictions": [1, 1]}, answer)


def V1_explain(stage: Stage) -> None:
    answer = rest(stage, "v1", lambda client: client.explain(stage.url, "power", {"instances": [ROW, ROW]}))
    first, second = answer["explanations"]
    expect(first == second and set(first["contributions"]) == set(ROW), answer)
    total = first["base_value"] + sum(first["contributions"].values())
    expect(abs(total - first["value"]) < 1e-4 and first["prediction"] == 1, answer)


def V2_is_server_live(stage: Stage) -> None:
    expect(rest(stage, "v2", lambda client: client.is_server_live(stage.url)))


def V2_is_server_ready(stage: Stage) -> None:
    expect(rest(stage, "v2", lambda client: client.is_server_ready(stage.url)))


def V2_is_model_ready(stage: Stage) -> None:
    expect(rest(stage, "v2", lambda client: client.is_model_ready(stage.url, "power")))
    expect(not rest(stage, "v2", lambda client: client.is_model_ready(stage.url, "nobody")))


def V2_infer(stage: Stage) -> None:
    expect_one(rest(stage, "v2", lambda client: client.infer(stage.url, request(), model_name="power")))


def V2_infer_with_binary_tensors(stage: Stage) -> None:
    expect_one(rest(stage, "v2", lambda client: client.infer(stage.url, request(binary=True), model_name="power")))


def errors_are_read(stage: Stage) -> None:
    try:
        rest(stage, "v2", lambda client: client.infer(stage.url, request(), model_name="nobody"))
    except httpx.HTTPStatusError as exc:
        expect(exc.response.status_code == 404 and "nobody" in str(exc), exc)
    else:
        raise AssertionError("it was not refused")


def is_server_live(stage: Stage) -> None:
    expect(grpc(stage, lambda client: client.is_server_live()))


def is_server_ready(stage: Stage) -> None:
    expect(grpc(stage, lambda client: client.is_server_ready()))


def is_model_ready(stage: Stage) -> None:
    expect(grpc(stage, lambda client: client.is_model_ready("power")))
    expect(not grpc(stage, lambda client: client.is_model_ready("nobody")))


def infer_with_typed_contents(stage: Stage) -> None:
    expect_one(grpc(stage, lambda client: client.infer(request())))


def infer_with_raw_contents(stage: Stage) -> None:
    expect_one(grpc(stage, lambda client: client.infer(request(binary=True))))


REST = [
    V1_is_server_live,
    V1_is_model_ready,
    V1_infer,
    V1_explain,
    V2_is_server_live,
    V2_is_server_ready,
    V2_is_model_ready,
    V2_infer,
    V2_infer_with_binary_tensors,
    errors_are_read,
]
GRPC = [is_server_live, is_server_ready, is_model_ready, infer_with_typed_contents, infer_with_raw_contents]

if __name__ == "__main__":
    run({"rest": REST, "grpc": GRPC}[sys.argv[3]])
