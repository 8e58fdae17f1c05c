"""Which model and version a path means, in each protocol; a slash at the end changes nothing.

A version is a number, a digest or an alias (``@champion``, ``@candidate``), in every protocol.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["Target", "alias_of", "explain_target", "infer_target", "invocations_target", "predict_target"]


_KEPT = 64
"""Paths whose meaning is remembered: those in use. Few, since whoever sends paths may choose long ones."""


class Target(NamedTuple):
    """What is asked.

    Attributes:
        model: empty where the path names none.
        version: None leaves the choice to the routing table.
    """

    model: str
    version: str | None = None


@lru_cache(_KEPT)
def infer_target(path: str) -> Target | None:
    """Return what ``/v2/models/{model}[/versions/{version}]/infer`` names; None for another path."""
    if not path.startswith("/v2/models/"):
        return None
    return _target(path.removesuffix("/"), 3, "infer")


@lru_cache(_KEPT)
def invocations_target(path: str) -> Target | None:
    """Return what ``[/models/{model}[/versions/{version}]]/invocations`` names; None for another path."""
    path = path.removesuffix("/")
    if path == "/invocations":
        return Target("")
    return _target(path, 2, "invocations") if path.startswith("/models/") else None


@lru_cache(_KEPT)
def predict_target(path: str) -> Target | None:
    """Return what ``/v1/models/{model}[/versions/{version}|/labels/{label}]:predict`` names; None for another path."""
    return _v1_target(path, ":predict")


@lru_cache(_KEPT)
def explain_target(path: str) -> Target | None:
    """Return the same for ``:explain``."""
    return _v1_target(path, ":explain")


def alias_of(label: str) -> str:
    """Return the alias that TensorFlow Serving calls a label: ``/v1/models/{model}/labels/champion``."""
    return "@" + label.removeprefix("@")


def _v1_target(path: str, verb: str) -> Target | None:
    if not path.startswith("/v1/models/"):
        return None
    path = path.removesuffix("/")
    if not path.endswith(verb):
        return None
    parts = path.removesuffix(verb).split("/")[3:]
    if len(parts) == 1 and parts[0]:
        return Target(parts[0])
    if len(parts) == 3 and parts[0] and parts[2]:
        if parts[1] == "versions":
            return Target(parts[0], parts[2])
        if parts[1] == "labels":
            return Target(parts[0], alias_of(parts[2]))
    return None


def _target(path: str, first: int, last: str) -> Target | None:
    parts = path.split("/")
    if parts[-1] != last or not parts[first]:
        return None
    if len(parts) == first + 2:
        return Target(parts[first])
    if len(parts) == first + 4 and parts[first + 1] == "versions" and parts[first + 2]:
        return Target(parts[first], parts[first + 2])
    return None
