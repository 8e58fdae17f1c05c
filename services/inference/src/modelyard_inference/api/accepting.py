"""What a caller takes, as the headers ``accept`` and ``accept-encoding`` say (RFC 9110, section 12.5)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["weights"]


def weights(accepted: str) -> Mapping[str, float]:
    """Return what is named there, in small letters and without parameters, and its weight; 0 is what nobody wants.

    A weight that is no number is as none.
    """
    return {name: weight for name, weight in map(_weighed, accepted.lower().split(",")) if name}


def _weighed(part: str) -> tuple[str, float]:
    name, *parameters = map(str.strip, part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                break
    return name, 1.0
