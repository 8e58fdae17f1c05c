"""How many requests are answered at a time, and what their bodies take: what is refused beyond it leaves no trace."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import CountingObserver, Platform, a_server, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.auth.principals import ANONYMOUS
from modelyard_common.bodies import FREE_BYTES
from modelyard_common.clock import SystemClock
from modelyard_common.errors import NotFound
from modelyard_common.raw import RawRequest
from modelyard_inference.api.front import Bounds, Front
from modelyard_inference.api.hot import HotPath
from modelyard_inference.settings import InferenceSettings
from modelyard_inference.usecases.serving import ServedModels
from prometheus_client import REGISTRY

BODY = json.dumps({"inputs": [{"name": "load", "shape": [1], "datatype": "FP64", "data": [0.7]}]}).encode()


class Waiting:
    """Answers nobody until it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = asyncio.Event()

    async def __call__(self, query: Any) -> Any:
        self.asked.set()
        await self.may.wait()
        raise NotFound("no such model")

    def plain(self, model: str, *, may_wait: bool = False) -> None:
        """Leave every request to a coroutine."""


async def call(hot: HotPath) -> int:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("nothing more is sent")

    answer = await hot.infer(RawRequest("/v2/models/power/infer", ANONYMOUS, {}, BODY, receive))
    assert answer is not None
    return answer.status


def test_requests_refused_beyond_the_bound_leave_no_trace() -> None:
    async def play() -> tuple[list[int], int, int]:
        predict = Waiting()
        bounds = Bounds(timeout_s=5, max_rows=10, max_concurrent=1)
        hot = HotPath(
            Front(
                cast(Any, predict),
                cast(Any, None),
                ServedModels(),
                SystemClock(),
                bounds,
                CountingObserver(),
                cast(Any, None),
            ),
            cast(Any, None),
        )
        first = asyncio.create_task(call(hot))
        await predict.asked.wait()
        refused = [await call(hot) for _ in range(3)]
        predict.may.set()
        return refused, await first, await call(hot)

    refused, first, later = asyncio.run(play())

    assert len(set(refused)) == 1 and refused[0] in (429, 503)
    assert (first, later) == (404, 404)


@pytest.mark.parametrize("path", ["/invocations", "/v2/models/power/infer", "/v1/models/power:explain"])
def test_what_is_unpacked_counts_among_what_is_held(
    platform: Platform, bundles: tuple[Packed, Packed], path: str
) -> None:
    packed = gzip.compress(b" " * 90_000)
    with a_server(platform, bundles, max_body_bytes=100_000, max_held_bytes=200_000) as http:

        def post() -> httpx.Response:
            return http.post(path, content=packed, headers={"content-encoding": "gzip"})

        assert post().status_code == 400  # there is room, and it is no request
        with contextlib.ExitStack() as slow:
            for _ in range(3):
                one = socket.create_connection((http.base_url.host, http.base_url.port or 0))
                slow.enter_context(one)
                one.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 99000\r\n\r\n" + b" " * 98_000)
            # Gauges are shown once a second. Nothing is posted meanwhile: what it held might keep one of these out.
            eventually(lambda: _shown("held") == 3 * (98_000 - FREE_BYTES) and _shown("limit") == 200_000)
            refused = post()
        eventually(lambda: post().status_code == 400)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


def _shown(what: str) -> float | None:
    return REGISTRY.get_sample_value(f"modelyard_inference_bodies_{what}_bytes")


@given(st.integers(1, 64), st.integers(2**10, 2**26), st.integers(2**11, 2**36), st.integers(0, 2**36))
def test_workers_share_the_bounds_of_their_server(of: int, body: int, held: int, budget: int) -> None:
    server = InferenceSettings(
        spool_segment_bytes=1024,
        max_body_bytes=body,
        max_held_bytes=max(held, 2 * body),
        memory_budget_bytes=budget,
    )

    worker = server.of_worker(port=1, grpc_port=2, of=of)

    assert (worker.port, worker.grpc_port) == (1, 2)
    assert worker.spool_max_bytes * of <= server.spool_max_bytes
    assert worker.max_held_bytes >= 2 * body
    assert worker.max_held_bytes * of <= server.max_held_bytes or worker.max_held_bytes == 2 * body
    assert (worker.memory_budget_bytes == 0) == (budget == 0)
    assert 0 <= worker.memory_budget_bytes * of - budget < of
