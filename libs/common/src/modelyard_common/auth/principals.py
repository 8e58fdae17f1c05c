"""Principals and their roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ANONYMOUS", "ROLES", "Principal", "Role"]

Role = Literal["service", "admin", "client"]
ROLES: frozenset[str] = frozenset({"service", "admin", "client"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks."""

    name: str
    role: Role


ANONYMOUS = Principal("anonymous", "admin")
"""Everybody on loopback, where ``auth`` is ``none``."""
