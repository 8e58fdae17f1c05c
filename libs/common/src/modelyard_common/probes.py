"""What probes and scrapers ask, answered before any framework is: they ask all the time, and for little.

Whether the process lives is answered on the event loop, so that it waits for no thread. What may take a while, checks
that look at disks and many metrics, has threads of its own: whoever fills those of others does not make a pod unready.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, Problem

from modelyard_common import context
from modelyard_common.edge import problem_bytes
from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute

__all__ = ["probes"]

_THREADS = 4
"""Kubernetes asks one thing at a time, and so does each Prometheus."""


def probes(health: Health, render_metrics: Callable[[], tuple[bytes, str]]) -> Sequence[RawRoute]:
    """Return the routes.

    Args:
        render_metrics: returns what ``/metrics`` shows, and its content type.
    """
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")

    async def live() -> RawAnswer:
        return _json({"status": "live"})

    async def startup() -> RawAnswer:
        started = health.is_started
        return _json({"status": "started" if started else "starting"}, 200 if started else 503)

    async def ready() -> RawAnswer:
        report = await asyncio.get_running_loop().run_in_executor(threads, health.report)
        body = {"status": "ready" if report.ready else "unready", "checks": report.checks}
        return _json(body, 200 if report.ready else 503)

    async def metrics() -> RawAnswer:
        body, media_type = await asyncio.get_running_loop().run_in_executor(threads, render_metrics)
        return RawAnswer(body, media_type.encode())

    async def refused(request: RawRequest) -> RawAnswer:
        del request
        title = "Method Not Allowed"
        problem = Problem(title=title, status=405, detail="only GET is taken here", request_id=context.request_id.get())
        return RawAnswer(problem_bytes(problem), PROBLEM_MEDIA_TYPE.encode(), 405, b"allow: GET\r\n")

    def of(answer: Callable[[], Any]) -> Callable[[RawRequest], Any]:
        return lambda request: answer()

    answers = {
        "/health/live": live,
        "/health/startup": startup,
        "/health/ready": ready,
        "/health": ready,
        "/metrics": metrics,
    }
    routes = [RawRoute(partial(_asks, path), of(answer), path) for path, answer in answers.items()]
    return [*routes, *(RawRoute(partial(_is, path), refused, path) for path in answers)]


def _asks(wanted: str, method: str, path: str) -> bool:
    return method == "GET" and _is(wanted, method, path)


def _is(wanted: str, method: str, path: str) -> bool:
    del method
    return path.removesuffix("/") == wanted


def _json(body: Any, status: int = 200) -> RawAnswer:
    again = b"retry-after: 1\r\n" if status == 503 else b""
    return RawAnswer(json.dumps(body, separators=(",", ":")).encode(), status=status, headers=again)
