"""W3C Trace Context: every request has a trace, and passes it on. Spans are exported only when told where to.

See https://www.w3.org/TR/trace-context/ §3.2 for the header.
"""

from __future__ import annotations

import re
import secrets

__all__ = ["child_of", "new_traceparent", "parse_traceparent"]

_HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def new_traceparent() -> str:
    """Return the header of a new trace, not sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def parse_traceparent(header: str | None) -> str | None:
    """Return the header if it is valid (version 00, no all-zero ids), else None."""
    if header is None or (match := _HEADER.fullmatch(header.strip())) is None:
        return None
    if set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None
    return match[0]


def child_of(header: str | None) -> str:
    """Return the header of a new span in the trace that header names, or in a new trace."""
    parent = parse_traceparent(header)
    if parent is None:
        return new_traceparent()
    _, trace, _, flags = parent.split("-")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"
