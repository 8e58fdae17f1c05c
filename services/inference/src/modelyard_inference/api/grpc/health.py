"""``grpc.health.v1.Health``, which Kubernetes and load balancers ask: the same readiness as ``/health/ready``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2
from modelyard_common.health import Health

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

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the table of methods for the server."""
        serializers = {
            "request_deserializer": health_pb2.HealthCheckRequest.FromString,
            "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check, **serializers),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **serializers),
            },
        )

    def _status(self, service: str) -> int:
        found = health_pb2.HealthCheckResponse
        if service not in _KNOWN:
            return int(found.SERVICE_UNKNOWN)
        return int(found.SERVING if self._health.report().ready else found.NOT_SERVING)

    async def _check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def _watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told = None
        while not self._closing.is_set():
            if (status := self._status(request.service)) != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._closing.wait()
            except TimeoutError:
                continue
