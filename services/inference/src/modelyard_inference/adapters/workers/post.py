"""What a worker is told when it begins: which one it is, and what it shares with the others."""

from __future__ import annotations

import msgspec

__all__ = ["Post"]


class Post(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The place of one worker.

    Attributes:
        slot: 0 and up; the one that replaces it takes the same.
        of: how many there are.
        channel: descriptor of its end of the channel to the supervisor.
        port: where all of them listen for HTTP.
        grpc_port: and for gRPC.
        joins: the others serve already, so that it listens only once it can answer.
        unloaded: models that were unloaded by request.
    """

    slot: int
    of: int
    channel: int
    port: int
    grpc_port: int
    joins: bool = False
    unloaded: tuple[str, ...] = ()

    def written(self) -> str:
        """Return it as an argument of a command."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> Post:
        """Return what was written. Raise ValueError for anything else."""
        return msgspec.json.decode(text, type=cls)
