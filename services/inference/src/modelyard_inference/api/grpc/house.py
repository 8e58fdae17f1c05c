"""What all connections of the gRPC server share: its methods, its bounds, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelyard_common.auth.authenticator import Authenticator
from modelyard_common.bodies import HeldBytes

from modelyard_inference.api.grpc.calls import Method

__all__ = ["Guest", "House"]


class Guest(Protocol):
    """A connection."""

    @property
    def is_idle(self) -> bool:
        """Whether it brings no call."""
        ...

    def close(self) -> None:
        """Ask the caller to send no more calls; go once those that it has sent are answered."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


@dataclass
class House:
    """Where connections stay.

    Attributes:
        methods: by path.
        patience_s: how long the one message of a call may take to arrive.
        most_bytes: of one message, whichever its method.
        held: counts what calls have sent and are not answered, of all together.
        most_calls: at a time, of all connections together.
        most_connections: at a time. Beyond, one without a call makes room.
        connections: the oldest first.
        calls: that are being answered, also for callers that have gone.
        is_closing: no more messages are taken.
        turn: held while a message is unpacked on the event loop.
    """

    methods: Mapping[bytes, Method]
    authenticator: Authenticator
    patience_s: float
    most_bytes: int
    most_calls: int
    most_connections: int
    held: HeldBytes
    connections: dict[Guest, None] = field(default_factory=dict)
    calls: int = 0
    is_closing: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    def came(self, connection: Guest) -> None:
        """Take a connection in."""
        self.connections[connection] = None
        if len(self.connections) > self.most_connections:
            next((one for one in self.connections if one.is_idle), connection).abort()

    def left(self, connection: Guest) -> None:
        """Forget a connection."""
        self.connections.pop(connection, None)
        self._left.set()

    async def close(self, grace_s: float) -> None:
        """Take no more calls, give those in flight their time, end."""
        self.is_closing = True
        for connection in tuple(self.connections):
            connection.close()
        try:
            async with asyncio.timeout(grace_s):
                while self.connections:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            for connection in tuple(self.connections):
                connection.abort()
