"""Durations as people write them in a manifest: ``250ms``, ``30s``, ``10m``, ``1h``, ``1d``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Duration", "duration_s"]

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = r"^([0-9]+(ms|s|m|h|d))+$"


def duration_s(text: str) -> float:
    """Return the seconds that text means; raise ValueError when it is no duration."""
    if not re.fullmatch(_PATTERN, text):
        raise ValueError(f"a duration is written like 30s, 10m, 1h30m or 1d, found {text[:40]!r}")
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", text))


def _valid(text: str) -> str:
    duration_s(text)
    return text


Duration = Annotated[str, AfterValidator(_valid), Field(json_schema_extra={"pattern": _PATTERN})]
