"""Follow the objects: wake the next round when a spec changes or an object is deleted, and for nothing else.

It only makes the operator quick: whatever it misses is found by the round that comes anyway. The operator's own writes
of status do not wake it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelyard_common.errors import Conflict

from modelyard_operator.domain.ports import Objects

__all__ = ["Follow"]


@dataclass(slots=True)
class Follow:
    """One watch after another."""

    objects: Objects
    wake: Callable[[], None]
    _since: str | None = None
    _marks: dict[str, tuple[int, bool] | None] = field(default_factory=dict)

    def __call__(self) -> None:
        """Watch for a few seconds; raise Unavailable when the cluster is away."""
        try:
            for change in self.objects.changes(self._since):
                self._since = change.version
                if change.name and (change.name not in self._marks or self._marks[change.name] != change.mark):
                    self._marks[change.name] = change.mark
                    self.wake()
                if change.name and change.mark is None:
                    self._marks.pop(change.name, None)
        except Conflict:
            # What happened since the forgotten version is unknown: a round finds out.
            self._since = None
            self.wake()
