"""What belongs to the request in hand and is needed far from it: its id, its trace, who asked."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["principal_name", "request_id", "traceparent", "tracestate"]

request_id: ContextVar[str | None] = ContextVar("modelyard_request_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("modelyard_traceparent", default=None)
"""W3C Trace Context, as it goes into outgoing headers."""
tracestate: ContextVar[str | None] = ContextVar("modelyard_tracestate", default=None)
"""What vendors of tracing tell each other; passed on as it came."""
principal_name: ContextVar[str] = ContextVar("modelyard_principal", default="anonymous")
