"""Episodes: a lasting change, keyed by model, reference version and the set of features that drifted.

A feature that newly crosses opens another episode; the same ones again lengthen theirs. A promotion closes all, and
one whose features stay calm for some windows subsides, so that their next crossing is news again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from modelyard_drift.domain.severity import Severity, worst

__all__ = ["CALM_WINDOWS", "Episode", "Glance", "Sighting", "close_all", "follow", "has_subsided"]

CALM_WINDOWS = 2
"""One calm window may be chance; with more, a change that comes back within weeks would go unseen."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A change that lasts."""

    id: str
    reference: str
    features: tuple[str, ...]
    severity: Severity
    opened_window: str
    opened_row: int
    window_first_row: int
    opened_at: datetime
    windows: int = 1
    closed_at: datetime | None = None
    closed_by: str = ""
    commanded: bool = False
    """Training was commanded for it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a window saw drift."""

    window: str
    last_row: int
    first_row: int
    at: datetime
    reference: str


def follow(
    open_episodes: Sequence[Episode], drifted: Mapping[str, Severity], seen: Sighting, *, new_id: str
) -> tuple[list[Episode], list[Episode]]:
    """Return the open episodes after a window, and those among them that it touched (new ones included).

    Args:
        drifted: feature to severity, of this window.
        new_id: given to the episode that opens, if one does.
    """
    result, touched = [], []
    known = {feature for episode in open_episodes for feature in episode.features}
    for episode in open_episodes:
        present = [drifted[feature] for feature in episode.features if feature in drifted]
        if not present:
            result.append(episode)
            continue
        severity = episode.severity
        for other in present:
            severity = worst(severity, other)
        longer = replace(episode, severity=severity, windows=episode.windows + 1)
        result.append(longer)
        touched.append(longer)
    newly = sorted(set(drifted) - known)
    if newly:
        severity = "none"
        for feature in newly:
            severity = worst(severity, drifted[feature])
        opened = Episode(
            id=new_id,
            reference=seen.reference,
            features=tuple(newly),
            severity=severity,
            opened_window=seen.window,
            opened_row=seen.last_row,
            window_first_row=seen.first_row,
            opened_at=seen.at,
        )
        result.append(opened)
        touched.append(opened)
    return result, touched


@dataclass(frozen=True, slots=True)
class Glance:
    """What a closed window says about the names of an episode.

    Attributes:
        judged: names that it had enough rows, or labels, to judge.
        crossed: those of them that were beyond their thresholds.
    """

    first_row: int
    judged: frozenset[str]
    crossed: frozenset[str]


def has_subsided(episode: Episode, newest: Sequence[Glance]) -> bool:
    """Return whether an episode is over: the last windows since it opened judged all its names, and none crossed.

    Args:
        newest: the model's last CALM_WINDOWS closed windows, in any order.
    """
    names = set(episode.features)
    calm = [
        glance
        for glance in newest
        if glance.first_row > episode.opened_row and names <= glance.judged and not names & glance.crossed
    ]
    return len(calm) >= CALM_WINDOWS


def close_all(open_episodes: Sequence[Episode], *, at: datetime, by: str) -> list[Episode]:
    """Return the episodes, closed."""
    return [replace(episode, closed_at=at, closed_by=by) for episode in open_episodes]
