"""``grpc.health.v1.Health``, which Kubernetes and load balancers ask: the same readiness as ``/health/ready``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from modelyard_common.errors import NotFound
from modelyard_common.health import Health

from modelyard_inference.api.grpc.calls import PROBE_BYTES, Call, Method
from modelyard_inference.api.grpc.edge import read_only
from modelyard_inference.api.grpc.servicer import SERVICE

__all__ = ["HEALTH", "HealthServicer"]

HEALTH = "grpc.health.v1.Health"
_KNOWN = ("", SERVICE)
_LOOK_S = 0.5
"""Between two looks for those who watch: less than the shortest drain window that makes sense."""


class HealthServicer:
    """Answers probes."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the watches."""
        self._closing.set()

    def methods(self) -> Mapping[str, Method]:
        """Return the table of methods for the server."""
        return {
            f"/{HEALTH}/Check": Method(self._check, is_open=True, most_bytes=PROBE_BYTES),
            f"/{HEALTH}/Watch": Method(self._watch, is_open=True, most_bytes=PROBE_BYTES),
        }

    def _status(self, service: str) -> HealthCheckResponse:
        found = HealthCheckResponse
        if service not in _KNOWN:
            return found(status=found.SERVICE_UNKNOWN)
        return found(status=found.SERVING if self._health.report().ready else found.NOT_SERVING)

    async def _check(self, call: Call) -> None:
        service = (await read_only(HealthCheckRequest, call)).service
        if service not in _KNOWN:
            raise NotFound("there is no such service here")
        call.answer(self._status(service).SerializeToString())

    async def _watch(self, call: Call) -> None:
        service = (await read_only(HealthCheckRequest, call)).service
        told = None
        while not self._closing.is_set():
            if (status := self._status(service)) != told:
                told = status
                await call.send(status.SerializeToString())
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._closing.wait()
            except TimeoutError:
                continue
