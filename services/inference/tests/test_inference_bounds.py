"""How many requests are answered at a time: beyond the bound they are refused, and a refusal takes no place."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from inference_fakes import CountingObserver
from modelyard_common.auth.principals import ANONYMOUS
from modelyard_common.clock import SystemClock
from modelyard_common.errors import NotFound
from modelyard_common.raw import RawRequest
from modelyard_inference.api.front import Bounds, Front
from modelyard_inference.api.hot import HotPath
from modelyard_inference.usecases.serving import ServedModels

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
            Front(cast(Any, predict), ServedModels(), SystemClock(), bounds, CountingObserver()), cast(Any, None)
        )
        first = asyncio.create_task(call(hot))
        await predict.asked.wait()
        refused = [await call(hot) for _ in range(3)]
        predict.may.set()
        return refused, await first, await call(hot)

    refused, first, later = asyncio.run(play())

    assert len(set(refused)) == 1 and refused[0] in (429, 503)
    assert (first, later) == (404, 404)
