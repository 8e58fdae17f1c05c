"""What an exit code says about the end of a job: its own doing, or that of whoever sent a signal."""

from __future__ import annotations

import signal

from modelyard_training.domain.supervision import Presence, Sighting

__all__ = ["ending"]

# Whoever sends these does not judge the job: the machine is short of memory, or goes down.
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})


def ending(code: int) -> Sighting:
    """Return what an exit code means: -15 and 143 (as a job that tidies up and shells write it) are both SIGTERM."""
    try:
        number = signal.Signals(-code if code < 0 else code - 128)
    except ValueError:
        return Sighting(Presence.ENDED, code)
    return Sighting(Presence.KILLED if number in _FROM_OUTSIDE else Presence.ENDED, code, number.name)
