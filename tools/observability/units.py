"""Numbers as Grafana writes them: its units, short."""

from __future__ import annotations

import math

__all__ = ["size_of", "written"]

_TIMES = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_RATES = {"reqps": "req/s", "cps": "c/s", "ops": "ops/s"}


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value in its unit. Raise ValueError for a unit that no panel of ours has."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{_rounded(value * 100, decimals)}%"
    if unit == "percent":
        return f"{_rounded(value, decimals)}%"
    if unit in ("s", "bytes"):
        return _scaled(value, _TIMES if unit == "s" else _BYTES, decimals)
    if unit in _RATES:
        return f"{_rounded(value, decimals)} {_RATES[unit]}"
    if unit == "none":
        return _rounded(value, decimals)
    raise ValueError(f"{unit!r} is no unit of ours")


def size_of(value: float, unit: str) -> float:
    """Return how many base units the unit has in which a value is written, for example 60 for minutes."""
    scale = {"s": _TIMES, "bytes": _BYTES}.get(unit, ((1.0, ""),))
    return next((size for size, _ in scale if abs(value) >= size), scale[-1][0])


def _scaled(value: float, scale: tuple[tuple[float, str], ...], decimals: int | None) -> str:
    if value == 0:
        return f"0 {'s' if scale is _TIMES else 'B'}"
    size, name = next(((size, name) for size, name in scale if abs(value) >= size), scale[-1])
    return f"{_rounded(value / size, decimals)} {name}"


def _rounded(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{round(value, decimals) + 0.0:.{decimals}f}"
    if value == round(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
