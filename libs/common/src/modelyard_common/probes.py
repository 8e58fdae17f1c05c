"""What probes and scrapers ask, answered before any framework is: they ask all the time, and for little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute

__all__ = ["probes"]


def probes(health: Health, render_metrics: Callable[[], tuple[bytes, str]]) -> Sequence[RawRoute]:
    """Return the routes.

    Args:
        render_metrics: returns what ``/metrics`` shows, and its content type.
    """

    def live() -> RawAnswer:
        return _json({"status": "live"})

    def startup() -> RawAnswer:
        started = health.is_started
        return _json({"status": "started" if started else "starting"}, 200 if started else 503)

    def ready() -> RawAnswer:
        report = health.report()
        body = {"status": "ready" if report.ready else "unready", "checks": report.checks}
        return _json(body, 200 if report.ready else 503)

    def metrics() -> RawAnswer:
        body, media_type = render_metrics()
        return RawAnswer(body, media_type.encode())

    answers = {
        "/health/live": live,
        "/health/startup": startup,
        "/health/ready": ready,
        "/health": ready,
        "/metrics": metrics,
    }
    return [RawRoute(partial(_is, path), partial(_in_a_thread, answer), path) for path, answer in answers.items()]


def _is(wanted: str, method: str, path: str) -> bool:
    return path == wanted and method == "GET"


async def _in_a_thread(answer: Callable[[], RawAnswer], request: RawRequest) -> RawAnswer:
    """Answer where it may take a while: checks look at disks, and there may be many metrics."""
    del request
    return await asyncio.to_thread(answer)


def _json(body: Any, status: int = 200) -> RawAnswer:
    return RawAnswer(json.dumps(body, separators=(",", ":")).encode(), status=status)
