"""JSON of which equal values give equal bytes: what digests are made over."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["canonical_json"]


def canonical_json(value: Any) -> bytes:
    """Return value as JSON with sorted keys and no white space.

    Raises:
        ValueError: it holds a number that JSON has no name for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
