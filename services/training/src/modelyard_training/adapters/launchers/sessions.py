"""The processes of a session, found by its id: how an attempt's whole family is signalled, and nobody else.

A session's id is the process id of its first leader. While a process of the session lives, the kernel gives that
number to nobody else; when none is left it may. So without proof that one of ours lives, the creation times decide.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil

__all__ = ["members", "send"]


def members(leader: int, created: float, *, ours: bool) -> Iterator[psutil.Process]:
    """Yield the living processes of a session.

    Args:
        leader: the process id of its first leader.
        created: when the leader was created, in seconds since 1970.
        ours: it is known (by the attempt's lock) that a process of ours is in it.
    """
    if leader <= 1:
        return
    if not ours and psutil.pid_exists(leader):
        # Whoever has the number now leads a session of its own.
        return
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader and (ours or process.create_time() >= created):
                yield process


def send(number: signal.Signals, leader: int, created: float, *, ours: bool) -> int:
    """Send a signal to the processes of a session; return how many there were."""
    count = 0
    for process in members(leader, created, ours=ours):
        with suppress(psutil.Error):
            process.send_signal(number)
            count += 1
    return count
