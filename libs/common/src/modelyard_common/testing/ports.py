"""Ports for servers that a test starts later, or never."""

from __future__ import annotations

import random
import socket
from pathlib import Path

__all__ = ["free_port", "free_port_base"]

_FIRST, _LAST = 15_000, 29_999
"""Below the ports that Linux, and IANA's 49152 and up, give to outgoing connections.

A connection holds its own port against every server (``bind`` says EADDRINUSE), and one to a port where nobody listens
yet can meet itself there. Whoever asks the kernel for a port and gives it back gets one of those.
"""


def free_port() -> int:
    """Return a port of loopback that nobody has right now, and that no outgoing connection will take.

    Raises:
        RuntimeError: there is none.
    """
    return free_port_base(1)


def free_port_base(ports: int = 11) -> int:
    """Return a port that is free together with those that follow it, as a platform wants them.

    Raises:
        RuntimeError: there are none.
    """
    # At random, and not from a seed: processes that look at the same time should not find the same.
    last = _last() - ports + 1
    for _ in range(500):
        base = random.SystemRandom().randint(_FIRST, last)
        if all(_is_free(base + offset) for offset in range(ports)):
            return base
    raise RuntimeError(f"there are no {ports} free ports in a row from {_FIRST} to {last}")


def _last() -> int:
    """Return the last port before those of outgoing connections; a machine that gives it all ports has none."""
    try:
        outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return _LAST
    return min(_LAST, outgoing - 1) if outgoing > _FIRST + 1000 else _LAST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
