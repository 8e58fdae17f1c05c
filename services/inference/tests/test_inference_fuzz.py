"""Whatever is sent: an answer or the caller's error, never a 500, a traceback, or a value that was sent."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inference_fakes import a_platform, a_server
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Invalid
from modelyard_inference.api.codecs import scoring, v2, v2_grpc
from modelyard_inference.api.codecs.raw import pack, unpack
from modelyard_inference.api.grpc import open_inference_pb2 as pb

SECRET = "very-secret-value"
DATATYPES = ["BOOL", "BYTES", "FP16", "FP32", "FP64", "BF16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "NONE", ""]
NAMES = st.sampled_from(["load", "price", "day", "x", ""])

secrets = st.text(max_size=3).map(lambda text: SECRET + text)
numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e39]),
)
values = st.one_of(st.none(), st.booleans(), numbers, secrets)
documents = st.recursive(
    values,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
parameters = st.one_of(
    st.none(),
    documents,
    st.dictionaries(st.sampled_from(["event_time", "routing_key", "timeout", "binary_data_output", "y"]), documents),
)
shapes = st.lists(st.one_of(st.integers(-1, 3), st.sampled_from([2**31, 2**62])), max_size=3)
tensors = st.fixed_dictionaries(
    {"name": NAMES, "datatype": st.sampled_from(DATATYPES), "shape": shapes},
    optional={
        "data": st.one_of(st.lists(values, max_size=4), st.lists(st.lists(values, max_size=3), max_size=3), documents),
        "parameters": st.one_of(parameters, st.fixed_dictionaries({"binary_data_size": documents})),
    },
)
v2_requests = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(tensors, max_size=4), documents)},
    optional={
        "id": documents,
        "parameters": parameters,
        "outputs": st.one_of(
            documents,
            st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["predict", "predict_proba", "z"])}, optional={"parameters": parameters}
                ),
                max_size=3,
            ),
        ),
    },
)
rows = st.dictionaries(NAMES, values, max_size=4)
scoring_requests = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "params", "parameters", "rows"]),
    st.one_of(
        documents,
        st.lists(rows, max_size=3),
        st.lists(st.lists(values, max_size=4), max_size=3),
        st.dictionaries(NAMES, st.lists(values, max_size=3), max_size=4),
        st.fixed_dictionaries({"columns": documents, "data": documents}),
        parameters,
    ),
    max_size=3,
)
bodies = st.one_of(
    st.binary(max_size=60),
    v2_requests.map(lambda document: json.dumps(document | {"z": math.nan}).encode()),
    scoring_requests.map(lambda document: json.dumps(document).replace("null", "NaN").encode()),
    st.one_of(v2_requests, scoring_requests, documents).map(lambda document: json.dumps(document).encode()),
)
usual = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


HUGE = json.dumps(
    {"inputs": [{"name": "a", "datatype": "FP64", "shape": [2**62, 4], "parameters": {"binary_data_size": 0}}]}
).encode()


def refused_clearly(error: Invalid) -> None:
    assert SECRET not in error.message
    assert all(SECRET not in field.message for field in error.errors)


@usual
@given(body=bodies, length=st.one_of(st.none(), st.integers(0, 200)), tail=st.binary(max_size=40))
@example(
    body=b'{"inputs": [{"name": "load", "datatype": "FP64", "shape": [4611686018427387904, 4]}]}', length=88, tail=b""
)
def test_v2_requests_are_decoded_or_refused(body: bytes, length: int | None, tail: bytes) -> None:
    try:
        v2.decode(body + tail, length)
    except Invalid as exc:
        refused_clearly(exc)


@usual
@given(body=bodies)
@pytest.mark.parametrize("decode", [scoring.decode_json, scoring.decode_v1, scoring.decode_csv])
def test_scoring_requests_are_decoded_or_refused(decode: Any, body: bytes) -> None:
    try:
        decode(body)
    except Invalid as exc:
        refused_clearly(exc)


grpc_parameters = st.dictionaries(
    st.sampled_from(["event_time", "routing_key", "timeout", "y"]),
    st.one_of(
        st.builds(pb.InferParameter),
        st.builds(pb.InferParameter, bool_param=st.booleans()),
        st.builds(pb.InferParameter, string_param=secrets),
        st.builds(pb.InferParameter, double_param=st.floats()),
        st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    ),
    max_size=2,
)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    fp64_contents=st.lists(st.floats(), max_size=2),
    bytes_contents=st.lists(st.one_of(st.binary(max_size=4), secrets.map(str.encode)), max_size=2),
)
grpc_requests = st.builds(
    pb.ModelInferRequest,
    id=st.text(max_size=3),
    parameters=grpc_parameters,
    inputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferInputTensor,
            name=NAMES,
            datatype=st.sampled_from(DATATYPES),
            shape=shapes,
            contents=st.one_of(st.none(), contents),
        ),
        max_size=3,
    ),
    outputs=st.lists(st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=NAMES), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=20), max_size=3),
)


@usual
@given(request=grpc_requests)
def test_grpc_requests_are_decoded_or_refused(request: pb.ModelInferRequest) -> None:
    try:
        v2_grpc.decode(request)
    except Invalid as exc:
        refused_clearly(exc)


ROUND_TRIPS = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP16": st.floats(width=16, allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("datatype", ROUND_TRIPS)
@usual
@given(data=st.data())
def test_what_is_packed_unpacks_to_itself(datatype: str, data: st.DataObject) -> None:
    sent = data.draw(st.lists(ROUND_TRIPS[datatype], max_size=5))

    assert unpack(datatype, len(sent), pack(datatype, sent), "x") == sent


def test_a_bfloat_is_the_upper_half_of_a_float() -> None:
    floats = np.float32([1.0, -2.5, math.nan])
    halves = (floats.view(np.uint32) >> 16).astype("<u2").tobytes()

    assert unpack("BF16", 3, halves, "x") == [1.0, -2.5, None]


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]
) -> Iterator[tuple[httpx.Client, grpc.Channel]]:
    """Give a server that no test changes, by both of its ports."""
    with (
        a_platform(tmp_path_factory.mktemp("fuzz")) as platform,
        a_server(platform, bundles) as http,
        grpc.insecure_channel(platform.grpc_target) as channel,
    ):
        yield http, channel


@pytest.fixture(scope="module")
def shared(both: tuple[httpx.Client, grpc.Channel]) -> httpx.Client:
    return both[0]


PATHS = [
    "/v2/models/power/infer",
    "/v2/models/power/versions/1/infer",
    "/v2/repository/index",
    "/v2/repository/models/power/load",
    "/invocations",
    "/models/power/invocations",
    "/v1/models/power:predict",
]
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/json", "text/csv", "application/vnd.apache.parquet", "a/b", "", ";"]
        ),
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", ""]),
        "inference-header-content-length": st.sampled_from(["0", "1", "60", "-1", "x", "9" * 30]),
        "modelyard-timeout-ms": st.sampled_from(["1000", "0", "x", "9" * 30]),
        "modelyard-event-time": st.sampled_from(["2026-01-01T00:00:00Z", "1e400", SECRET, ","]),
        "modelyard-routing-key": st.sampled_from(["k", "", SECRET]),
        "accept": st.sampled_from(["*/*", "application/vnd.apache.arrow.stream"]),
    },
)


@settings(usual, max_examples=300, suppress_health_check=[*HealthCheck])
@given(path=st.sampled_from(PATHS), body=bodies, given_headers=headers, packed=st.booleans())
def test_the_server_answers_or_names_what_is_wrong(
    shared: httpx.Client, path: str, body: bytes, given_headers: dict[str, str], packed: bool
) -> None:
    content = gzip.compress(body) if packed else body

    response = shared.post(path, content=content, headers=given_headers)

    assert response.status_code in (200, 400, 404, 413, 415, 504), response.text
    if response.status_code != 200:
        assert "Traceback" not in response.text
        assert SECRET not in response.text
        if response.status_code != 415 or "invocations" not in path:
            assert response.json().keys() & {"error", "message"}


EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@settings(usual, suppress_health_check=[*HealthCheck])
@given(content=st.one_of(st.binary(max_size=40), grpc_requests.map(lambda request: request.SerializeToString())))
def test_the_grpc_server_answers_or_names_what_is_wrong(
    both: tuple[httpx.Client, grpc.Channel], content: bytes
) -> None:
    infer = both[1].unary_unary("/inference.GRPCInferenceService/ModelInfer")

    try:
        infer(b"\x0a\x05power" + content, timeout=20)
    except grpc.RpcError as exc:
        assert exc.code() in EXPECTED, exc
        assert SECRET not in exc.details()
