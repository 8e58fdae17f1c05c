"""Whatever is sent: an answer or the caller's error, never a 500, a traceback, or a value that was sent."""

from __future__ import annotations

import gzip
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
from inference_malformed import PATHS, SECRET, bodies, check_form, grpc_requests, headers, usual
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Invalid
from modelyard_inference.api.codecs import scoring, v2, v2_grpc
from modelyard_inference.api.codecs.raw import pack, unpack
from modelyard_inference.api.grpc import open_inference_pb2 as pb


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


@pytest.mark.parametrize("decode", [scoring.decode_json, scoring.decode_v1])
@pytest.mark.parametrize("body", ['{"%s": 1}', '{"dataframe_split": {"%s": NaN}}', '{"a\n%s": 1}'])
def test_a_long_name_that_is_not_known_is_not_repeated_whole(decode: Any, body: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode((body % ("k" * 5000)).encode())

    assert len(caught.value.message) < 300


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


@settings(usual, max_examples=300, suppress_health_check=[*HealthCheck])
@given(path=st.sampled_from(PATHS), body=bodies, given_headers=headers, packed=st.booleans())
def test_the_server_answers_or_names_what_is_wrong(
    shared: httpx.Client, path: str, body: bytes, given_headers: dict[str, str], packed: bool
) -> None:
    content = gzip.compress(body) if packed else body

    response = shared.post(path, content=content, headers=given_headers)

    if response.status_code != 200:
        check_form(path, response)


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
