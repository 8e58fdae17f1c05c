"""Who this process is: the same facts in its log lines and in its traces, so that one leads to the other."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib import metadata

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A running service.

    Attributes:
        service: its name.
        environment: which installation it belongs to, such as production; empty: not said.
    """

    service: str
    environment: str = ""

    @property
    def version(self) -> str | None:
        """The version of its distribution; None for what is none of ours, such as in tests."""
        try:
            return metadata.version(f"modelyard-{self.service}")
        except metadata.PackageNotFoundError:
            return None

    @property
    def host(self) -> str:
        """The machine, or the pod."""
        return socket.gethostname()

    @property
    def instance(self) -> str:
        """What tells it from the other replicas, and from the process before it."""
        return f"{self.host}-{os.getpid()}"
