"""Bodies as large as a body may be, of rows as small as a row may be, to a server as it is deployed.

A few kilobytes on the wire stand for millions of rows. Each is refused as its protocol has it, while probes and those
who ask properly are answered, and the server does not grow by what such rows would take.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import httpx
import pytest
from inference_fakes import a_platform
from inference_malformed import check_form
from inference_process import InferenceProcess, good_requests, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MOST_BYTES = 16 * 1024**2
ALIVE_S = 2.0
"""Twice what a probe may take: the machines of tests have others on them."""
GROWN_MIB = 448
"""Of one body, what it was decoded to, and its copy as a column; objects for its rows took three times that."""
V2, V1, EXPLAIN = "/v2/models/power/infer", "/v1/models/power:predict", "/v1/models/power:explain"


def filled(before: bytes, part: bytes, after: bytes) -> bytes:
    """Return as many parts as a body has room for."""
    return before + part * ((MOST_BYTES - len(before) - len(after)) // len(part)) + after


VALUES = (MOST_BYTES - 100) // 2
TENSOR = b'{"inputs":[{"name":"load","shape":[%d],"datatype":"FP64","data":[' % VALUES
DISTINCT = b",".join(b'"%x":1' % place for place in range(2**20, 2**20 + MOST_BYTES // 12))
BODIES: dict[str, tuple[str, bytes]] = {
    "csv": ("/invocations", filled(b"load\n", b"1\n", b"")),
    "csv of empty lines": ("/invocations", filled(b"load\n", b"\n", b"")),
    "instances": ("/invocations", filled(b'{"instances":[', b"1,", b"1]}")),
    "instances of lists": ("/invocations", filled(b'{"instances":[', b"[1],", b"[1]]}")),
    "instances with NaN": ("/invocations", filled(b'{"instances":[', b"1,", b"NaN]}")),
    "one row": ("/invocations", filled(b'{"instances":[[', b"1,", b"1]]}")),
    "dataframe_split": ("/invocations", filled(b'{"dataframe_split":{"columns":["load"],"data":[', b"[1],", b"[1]]}}")),
    "dataframe_records": ("/invocations", filled(b'{"dataframe_records":[', b'{"load":1},', b'{"load":1}]}')),
    "one record": ("/invocations", b'{"dataframe_records":[{' + DISTINCT + b"}]}"),
    "V2": (V2, TENSOR + b"1," * (VALUES - 1) + b"1]}]}"),
    "V2 of lists": (V2, filled(TENSOR, b"[],", b"[]]}]}")),
    "V2 of inputs": (V2, filled(b'{"inputs":[', b'{"name":"","shape":[1],"datatype":"FP64"},', b"{}]}")),
    "V1": (V1, filled(b'{"instances":[', b"1,", b"1]}")),
    "V1 of lists": (V1, filled(b'{"instances":[', b"[1],", b"[1]]}")),
    "explain": (EXPLAIN, filled(b'{"instances":[', b"1,", b"1]}")),
    "explain of lists": (EXPLAIN, filled(b'{"instances":[', b"[1],", b"[1]]}")),
}


@pytest.fixture(scope="module")
def server(bundles: tuple[Packed, Packed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    """Give a server, warm."""
    folder = tmp_path_factory.mktemp("minimal")
    with a_platform(folder / "fakes") as platform, processes(platform, bundles, folder) as (one,):
        for good in good_requests() * 20:
            answer = httpx.post(one.url + good.path, content=good.body, headers=dict(good.headers), trust_env=False)
            assert answer.status_code == 200
        assert one.get("/v1/models/power").status_code == 200  # the framework, which explanations are asked through
        yield one


@pytest.fixture
def unharmed(server: InferenceProcess) -> Iterator[None]:
    """Ask properly, and whether it lives, all the while."""
    before = server.peak_mib
    with open_loop([server.url], good_requests(), rate=10.0, ready="/v2/health/live") as load, probed(server) as took:
        yield

    assert load.failures == []
    assert max(took) < ALIVE_S, sorted(took)[-5:]
    assert server.peak_mib < before + GROWN_MIB


@contextmanager
def probed(server: InferenceProcess) -> Iterator[list[float]]:
    """Look whether it lives, again and again; give how long each look took."""
    took: list[float] = []
    ended = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as http:
            while not took or not ended.wait(0.05):
                began = time.monotonic()
                alive = http.get("/v2/health/live").status_code == 200
                took.append(time.monotonic() - began if alive else float("inf"))

    prober = threading.Thread(target=look)
    prober.start()
    try:
        yield took
    finally:
        ended.set()
        prober.join()


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_millions_of_minimal_rows_are_refused_and_nobody_waits_for_it(server: InferenceProcess, packed: bool) -> None:
    statuses = {}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
        for name, (path, body) in BODIES.items():
            headers = {"content-type": "text/csv" if name.startswith("csv") else "application/json"}
            if packed:
                headers["content-encoding"] = "gzip"
            response = http.post(path, content=gzip.compress(body, 1) if packed else body, headers=headers)
            check_form(path, response)
            statuses[name] = response.status_code

    assert statuses == dict.fromkeys(BODIES, 413)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("field", [b"\x2a", b"\x22", b"\x32"], ids=["inputs", "parameters", "outputs"])
def test_millions_of_empty_fields_over_grpc_are_refused(server: InferenceProcess, field: bytes) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        with pytest.raises(grpc.RpcError) as refused:
            infer(filled(b"\x0a\x05power", field + b"\x00", b""), timeout=30)

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unharmed")
def test_several_at_once_are_read_one_after_the_other(server: InferenceProcess) -> None:
    path, body = BODIES["V2"]
    packed = gzip.compress(body)
    statuses: list[int] = []

    def ask(http: httpx.Client) -> None:
        statuses.append(http.post(path, content=packed, headers={"content-encoding": "gzip"}).status_code)

    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        callers = [threading.Thread(target=ask, args=(http,)) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    assert len(statuses) == 8 and 413 in statuses
    assert set(statuses) <= {413, 429, 504}  # they are read in turn, within the deadline


@pytest.mark.usefixtures("unharmed")
def test_a_deadline_holds_for_the_reading_too(server: InferenceProcess) -> None:
    path, body = BODIES["V2 of lists"]

    response = httpx.post(
        server.url + path, content=body, headers={"modelyard-timeout-ms": "1"}, trust_env=False, timeout=30
    )

    assert response.status_code == 504
