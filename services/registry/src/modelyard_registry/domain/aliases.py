"""Aliases: which names people may use for a version, and which ones a registry mirror has to set or take away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CANDIDATE", "CHAMPION", "AliasChange", "alias_changes", "desired_aliases"]

CHAMPION = "champion"
CANDIDATE = "candidate"
GOVERNED = (CHAMPION, CANDIDATE)
"""The aliases that the registry owns; it never touches another."""


@dataclass(frozen=True, slots=True)
class AliasChange:
    """Point an alias at a version, or (``version`` None) take it away."""

    alias: str
    version: str | None


def desired_aliases(champion: str | None, candidate: str | None) -> dict[str, str]:
    """Return the aliases that should exist, from the mirror's own version numbers."""
    wanted = {CHAMPION: champion, CANDIDATE: candidate}
    return {alias: version for alias, version in wanted.items() if version is not None}


def alias_changes(desired: Mapping[str, str], actual: Mapping[str, str]) -> tuple[AliasChange, ...]:
    """Return what turns actual into desired. Law: applying the changes and asking again gives no change."""
    changes = [AliasChange(alias, version) for alias, version in desired.items() if actual.get(alias) != version]
    stale = [AliasChange(alias, None) for alias in GOVERNED if alias in actual and alias not in desired]
    return tuple(changes + stale)
