"""More than a thousand requests that nobody should send, beside good ones, to a server as it is deployed.

Each gets the right answer of its protocol, none of it is repeated in an answer or in the log, the server does not grow,
and those who ask properly never notice.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_fakes import GOOD_ROW, a_platform
from inference_malformed import (
    PATHS,
    SECRET,
    bodies,
    check_form,
    damaged,
    deep,
    grpc_requests,
    headers,
    usual,
)
from inference_process import Holding, InferenceProcess, good_requests, processes, tables
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HTTP_REQUESTS, GRPC_REQUESTS = 1_000, 400
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TABLES = tables(GOOD_ROW | {"day": SECRET})
BINARY = next(one for one in good_requests(GOOD_ROW | {"day": SECRET}) if len(one.headers) == 1)

anything = st.tuples(st.sampled_from(PATHS), st.one_of(bodies, deep), headers)
tabular = st.sampled_from(TABLES).flatmap(
    lambda one: st.tuples(
        st.sampled_from(["/invocations", "/models/power/invocations"]), damaged(one.body), st.just(one.headers)
    )
)
binary = st.tuples(st.just(BINARY.path), damaged(BINARY.body), st.just(BINARY.headers))
# Few tables: one that ends the process that reads them costs the start of others.
malformed = st.integers(0, 11).flatmap(lambda chance: [tabular, binary, binary][chance] if chance < 3 else anything)
often = settings(usual, max_examples=HTTP_REQUESTS, suppress_health_check=[*HealthCheck])


@pytest.fixture(scope="module")
def server(bundles: tuple[Packed, Packed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    """Give a server, warm, with its process that reads tables."""
    folder = tmp_path_factory.mktemp("malformed")
    with a_platform(folder / "fakes") as platform, processes(platform, bundles, folder) as (one,):
        for good in [*tables(), *good_requests()] * 20:
            answer = httpx.post(one.url + good.path, content=good.body, headers=dict(good.headers), trust_env=False)
            assert answer.status_code == 200
        yield one


@pytest.fixture
def unharmed(server: InferenceProcess) -> Iterator[None]:
    """Ask properly all the while; afterwards all is as it was, and nothing was said that was sent."""
    before = server.holds()
    with open_loop([server.url], [*good_requests(), tables()[0]], rate=40.0) as load:
        yield
        load.wait_for(20)

    assert load.failures == []
    assert_not_grown(before, server.holds())
    assert SECRET not in server.log
    assert "Traceback" not in server.log
    levels = Counter(json.loads(line)["log.level"] for line in server.log.splitlines())
    assert levels["error"] == levels["critical"] == 0


def assert_not_grown(before: Holding, after: Holding) -> None:
    assert after.memory_mib < before.memory_mib + 48, (before, after)
    assert after.files <= before.files + 8, (before, after)
    assert after.threads <= before.threads + 8, (before, after)
    assert after.processes <= before.processes


@pytest.mark.usefixtures("unharmed")
def test_a_thousand_malformed_requests_over_http(server: InferenceProcess) -> None:
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:

        @often
        @given(sent=malformed, packed=st.booleans())
        def ask(sent: tuple[str, bytes, dict[str, str]], packed: bool) -> None:
            path, body, given_headers = sent
            extra = {"content-encoding": "gzip"} if packed else {}
            content = gzip.compress(body) if packed else body
            response = http.post(path, content=content, headers={**given_headers, **extra})
            statuses[response.status_code] += 1
            if response.status_code != 200:
                check_form(path, response)

        ask()

    assert statuses.total() >= HTTP_REQUESTS
    assert statuses[400] > HTTP_REQUESTS / 2


@pytest.mark.usefixtures("unharmed")
def test_malformed_calls_over_grpc(server: InferenceProcess) -> None:
    codes: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")

        @settings(often, max_examples=GRPC_REQUESTS)
        @given(
            content=st.one_of(st.binary(max_size=40), grpc_requests.map(lambda one: one.SerializeToString())),
            streamed=st.booleans(),
        )
        def ask(content: bytes, streamed: bool) -> None:
            message = b"\x0a\x05power" + content
            try:
                said = list(stream(iter([message]), timeout=30)) if streamed else [infer(message, timeout=30)]
                codes[grpc.StatusCode.OK] += 1
                assert all(SECRET.encode() not in one for one in said if streamed)
            except grpc.RpcError as exc:
                codes[exc.code()] += 1
                assert SECRET not in exc.details()

        ask()

    assert codes.keys() <= EXPECTED
    assert codes.total() >= GRPC_REQUESTS


BOMB = zlib.compress(b" " * 400_000_000, 9)
BOMBS = {"deflate": BOMB, "gzip": gzip.compress(b" " * 400_000_000, 9)}


@pytest.mark.usefixtures("unharmed")
def test_bodies_that_unpack_to_more_than_a_body_may_be_are_refused_unpacked(server: InferenceProcess) -> None:
    before = server.peak_mib
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
        for path in ("/v2/models/power/infer", "/invocations", "/v1/models/power:predict"):
            for encoding, bomb in BOMBS.items():
                response = http.post(path, content=bomb, headers={"content-encoding": encoding})
                assert response.status_code == 413
                check_form(path, response)

    assert server.peak_mib < before + 128
