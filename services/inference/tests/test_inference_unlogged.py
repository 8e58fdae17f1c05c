"""Requests that are kept out of the log: over every protocol, by those who may, and out of a rollout as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from inference_fakes import GOOD_ROW, Platform, eventually
from modelyard_bundle.packaging import Packed
from modelyard_client.inference import tensors
from modelyard_common.auth.tokens import hash_token
from modelyard_inference.api.grpc import open_inference_pb2 as pb

INFER, INVOCATIONS, PREDICT = "/v2/models/power/infer", "/models/power/invocations", "/v1/models/power:predict"
OFF = {"modelyard-log": "false"}
INPUTS, ROWS = {"inputs": tensors([GOOD_ROW])}, {"instances": [GOOD_ROW]}
BY_PARAMETER = {
    INFER: INPUTS | {"parameters": {"log": False}},
    INVOCATIONS: ROWS | {"params": {"log": False}},
    PREDICT: ROWS | {"parameters": {"log": False}},
}
PLAIN = {INFER: INPUTS, INVOCATIONS: ROWS, PREDICT: ROWS}


@pytest.fixture
def served(platform: Platform, bundles: tuple[Packed, Packed]) -> Iterator[httpx.Client]:
    """Serve one champion, and a candidate that gets every request."""
    champion, candidate = (str(bundle.digest) for bundle in bundles)
    platform.registry.add(*bundles)
    platform.registry.route("power", champion, candidate, weight=100)
    with platform.inference() as url, httpx.Client(base_url=url, trust_env=False) as http:
        eventually(lambda: http.get("/v2/models/power/versions/2/ready").status_code == 200)
        yield http


def logged(platform: Platform, http: httpx.Client) -> set[str]:
    """Return the ids that have reached drift, once all that were logged before this call have."""
    last = http.post(PREDICT, json=ROWS).headers["modelyard-prediction-id"]
    eventually(lambda: any(f"{last}/0" == one for one, _ in platform.drift.events))
    return {one.partition("/")[0] for one, _ in platform.drift.events} - {last}


@pytest.mark.parametrize("path", PLAIN)
def test_what_is_kept_out_is_answered_by_the_champion_and_not_written_down(
    platform: Platform, served: httpx.Client, bundles: tuple[Packed, Packed], path: str
) -> None:
    by_header = served.post(path, json=PLAIN[path], headers=OFF)
    by_parameter = served.post(path, json=BY_PARAMETER[path])
    named = served.post(path.replace("power", "power/versions/2", 1), json=PLAIN[path], headers=OFF)
    told = served.post(path, json=PLAIN[path], headers={"modelyard-log": "true"})

    champion, candidate = (str(bundle.digest) for bundle in bundles)
    versions = [one.headers["modelyard-version"] for one in (by_header, by_parameter, named, told)]
    assert versions == [champion, champion, candidate, candidate]
    assert logged(platform, served) == {told.headers["modelyard-prediction-id"]}


def test_a_shadow_gets_no_copy_of_it(platform: Platform, served: httpx.Client, bundles: tuple[Packed, Packed]) -> None:
    champion, candidate = (str(bundle.digest) for bundle in bundles)
    platform.registry.route("power", champion, candidate, shadow=True)
    eventually(lambda: served.get("/v1/served").json()["models"][0]["shadow"])

    served.post(PREDICT, json=ROWS, headers=OFF).raise_for_status()
    told = served.post(PREDICT, json=ROWS).headers["modelyard-prediction-id"]

    eventually(lambda: platform.drift.role("shadow"))
    assert {one["id"] for one in platform.drift.role("shadow")} == {f"{told}/0"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        *((path, body, {"modelyard-log": "no"}) for path, body in PLAIN.items()),
        (INFER, INPUTS | {"parameters": {"log": "false"}}, {}),
        (INVOCATIONS, ROWS | {"params": {"log": 0}}, {}),
        (PREDICT, ROWS | {"parameters": {"log": None}}, {}),
    ],
)
def test_anything_but_true_and_false_is_refused(
    served: httpx.Client, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    response = served.post(path, json=body, headers=headers)

    assert (response.status_code, "log: must be true or false" in response.text) == (400, True)


def grpc_request(**parameters: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="power")
    for name, value in parameters.items():
        request.parameters[name].bool_param = value
    request.inputs.add(name="load", datatype="FP32", shape=[1]).contents.fp32_contents.append(0.7)
    request.inputs.add(name="day", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"mon")
    return request


def grpc_infer(channel: grpc.Channel) -> Any:
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def test_over_grpc_it_is_metadata_or_a_parameter(platform: Platform, served: httpx.Client) -> None:
    with grpc.insecure_channel(platform.grpc_target) as channel:
        infer = grpc_infer(channel)
        infer(grpc_request(), metadata=tuple(OFF.items()))
        infer(grpc_request(log=False))
        told = infer(grpc_request(log=True)).parameters["modelyard-prediction-id"].string_param

    assert logged(platform, served) == {told}


def test_only_admins_and_services_may_keep_anything_out(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{role} {role} {hash_token(role)}\n" for role in ("client", "service")))
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    with (
        platform.inference(auth="token", tokens_file=tokens) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
        grpc.insecure_channel(platform.grpc_target) as channel,
    ):

        def post(role: str, path: str) -> int:
            headers = {"authorization": f"Bearer {role}", **OFF}
            return http.post(path, json=PLAIN[path], headers=headers).status_code

        eventually(lambda: post("service", INFER) == 200)
        ask, request = grpc_infer(channel), grpc_request(log=False)
        with pytest.raises(grpc.RpcError) as refused:
            ask(request, metadata=(("authorization", "Bearer client"),))
        ask(request, metadata=(("authorization", "Bearer service"),))

        assert [post("client", path) for path in PLAIN] == [403] * 3
        assert [post("service", path) for path in PLAIN] == [200] * 3
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
