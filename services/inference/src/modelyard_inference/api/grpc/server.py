"""The gRPC server, on a port of its own and on the event loop of the HTTP server: one process, one engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc
from grpc_reflection.v1alpha import reflection
from modelyard_common.auth.guards import Authenticator
from modelyard_common.errors import Unavailable
from modelyard_common.health import Health
from modelyard_common.logs import get_logger

from modelyard_inference.api.front import Front
from modelyard_inference.api.grpc.edge import Admission
from modelyard_inference.api.grpc.health import HEALTH, HealthServicer
from modelyard_inference.api.grpc.servicer import SERVICE, InferenceServicer
from modelyard_inference.api.triton import TotalsOf
from modelyard_inference.domain.ports import Loading
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["GrpcServer"]

_log = get_logger(__name__)
_IDENTITY_ONLY = 1
_CONNECTION_AGE_MS = 300_000
"""Calls in flight finish on the old connection; shorter costs handshakes, longer makes scaling up slower to help."""


@dataclass
class GrpcServer:
    """Serves until it is stopped.

    Attributes:
        host: the address to listen on.
        port: 0 for any free one; after ``start`` the one that it is.
        grace_s: how long calls in flight may take to finish.
        shared_port: other processes of this server listen on it too.
    """

    front: Front
    served: ServedModels
    loading: Loading
    health: Health
    totals: TotalsOf
    authenticator: Authenticator
    host: str
    port: int
    grace_s: float
    shared_port: bool = False
    _server: grpc.aio.Server | None = field(default=None, init=False)
    _servicers: tuple[InferenceServicer | HealthServicer, ...] = field(default=(), init=False)
    _stopping: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Begin to serve. Raise Unavailable when the port is taken."""
        bounds = self.front.bounds
        server = grpc.aio.server(
            interceptors=[Admission(self.authenticator)],
            options=[
                ("grpc.max_receive_message_length", bounds.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # A packed message is measured before it is unpacked, so that a small one could be any size.
                ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
                # A connection stays with its pod: without an end, a pod that is added later gets no calls.
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
                # Two servers on one port would share its calls, each with half of the truth: not so our own workers.
                ("grpc.so_reuseport", int(self.shared_port)),
            ],
            # Streams and watches stay open, each as a call; what predicts has a bound of its own.
            maximum_concurrent_rpcs=max(64, 4 * bounds.max_concurrent),
        )
        inference = InferenceServicer(self.front, self.served, self.loading, self.health, self.totals)
        probes = HealthServicer(self.health)
        server.add_generic_rpc_handlers((inference.handlers(), probes.handlers()))
        reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            self.port = server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as exc:
            raise Unavailable(f"grpc_port: {host}:{self.port} cannot be listened on; is it taken?") from exc
        await server.start()
        self._server, self._servicers = server, (inference, probes)
        _log.info("grpc.listening", address=f"{host}:{self.port}")

    async def stop(self) -> None:
        """Take no more calls, finish those in flight, end. A second call waits for the first."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        for servicer in self._servicers:
            servicer.close()
        if self._server is not None:
            await self._server.stop(self.grace_s)
