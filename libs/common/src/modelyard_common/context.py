"""What belongs to the request in hand and is needed far from it: its id, and its trace.

Every request has a trace, with or without somebody who collects spans: it ties the log lines of several processes
together. Where none came with a request it begins when it is first needed, since most requests need none.
"""

from __future__ import annotations

import random
import secrets
from contextvars import ContextVar

__all__ = ["new_traceparent", "request_id", "trace_in_hand", "traceparent", "tracestate"]

_chance = random.Random(secrets.randbits(256))
"""Ids need not be secret, only different: a generator that is seeded once saves a system call a request."""

request_id: ContextVar[str | None] = ContextVar("modelyard_request_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("modelyard_traceparent", default=None)
"""W3C Trace Context, as far as it has begun; ``trace_in_hand`` is what goes into headers and log lines."""
tracestate: ContextVar[str | None] = ContextVar("modelyard_tracestate", default=None)
"""What vendors of tracing tell each other; passed on as it came."""


def new_traceparent() -> str:
    """Return the header of a new trace, not sampled."""
    # One draw for both ids; the last bit of each is set, so that none is all zeros, which is no id.
    ids = f"{_chance.getrandbits(192) | 1 << 64 | 1:048x}"
    return f"00-{ids[:32]}-{ids[32:]}-00"


def trace_in_hand() -> str | None:
    """Return the trace of what is done now; one that is not sampled begins for a request that has none yet."""
    current = traceparent.get()
    if current is None and request_id.get() is not None:
        current = new_traceparent()
        traceparent.set(current)
    return current
