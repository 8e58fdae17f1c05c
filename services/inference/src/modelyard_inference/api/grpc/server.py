"""The gRPC server, on a port of its own and on the event loop of the HTTP server: one process, one engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from modelyard_common.auth.authenticator import Authenticator
from modelyard_common.errors import Unavailable
from modelyard_common.health import Health
from modelyard_common.logs import get_logger

from modelyard_inference.api.described import TotalsOf
from modelyard_inference.api.front import Front
from modelyard_inference.api.grpc.connections import Connection
from modelyard_inference.api.grpc.health import HEALTH, HealthServicer
from modelyard_inference.api.grpc.house import House
from modelyard_inference.api.grpc.reflection import REFLECTION, ReflectionServicer
from modelyard_inference.api.grpc.servicer import SERVICE, InferenceServicer
from modelyard_inference.domain.ports import Loading
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["GrpcServer"]

_log = get_logger(__name__)
_BACKLOG = 2048
"""Connections that wait to be taken, as HTTP's."""


@dataclass
class GrpcServer:
    """Serves until it is stopped.

    Attributes:
        host: the address to listen on.
        port: 0 for any free one; after ``start`` the one that it is.
        grace_s: how long calls in flight may take to finish.
        shared_port: other processes of this server listen on it too.
        most_connections: at a time.
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
    most_connections: int = 1000
    _listening: asyncio.Server | None = field(default=None, init=False)
    _house: House | None = field(default=None, init=False)
    _probes: HealthServicer | None = field(default=None, init=False)
    _stopping: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Begin to serve. Raise Unavailable when the port is taken."""
        bounds = self.front.bounds
        inference = InferenceServicer(self.front, self.served, self.loading, self.health, self.totals)
        self._probes = HealthServicer(self.health)
        methods = {
            **inference.methods(),
            **self._probes.methods(),
            **ReflectionServicer((SERVICE, HEALTH, *REFLECTION)).methods(),
        }
        house = House(
            {path.encode(): method for path, method in methods.items()},
            self.authenticator,
            patience_s=bounds.timeout_s,
            most_bytes=bounds.max_body_bytes,
            # Streams and watches stay open, each as a call; what predicts has a bound of its own.
            most_calls=max(64, 4 * bounds.max_concurrent),
            most_connections=self.most_connections,
            held=self.front.held,
        )
        try:
            # Two servers on one port would share its calls, each with half of the truth: not so our own workers.
            listening = await asyncio.get_running_loop().create_server(
                lambda: Connection(house),
                self.host,
                self.port,
                backlog=_BACKLOG,
                reuse_port=self.shared_port or None,
            )
        except OSError as exc:
            raise Unavailable(f"grpc_port: {self.host}:{self.port} cannot be listened on; is it taken?") from exc
        self.port = listening.sockets[0].getsockname()[1]
        self._listening, self._house = listening, house
        _log.info("grpc.listening", address=f"{self.host}:{self.port}")

    def check(self) -> str | None:
        """Return that nothing listens any more: a critical health check. Before the start, and once it is told to stop,
        the health of the whole process says so."""
        if self._listening is None or self._stopping is not None or self._listening.is_serving():
            return None
        return f"{self.host}:{self.port} is not listened on any more"

    async def stop(self) -> None:
        """Take no more calls, finish those in flight, end. A second call waits for the first."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._listening is None or self._house is None or self._probes is None:
            return
        self._probes.close()
        self._listening.close()
        await self._house.close(self.grace_s)
