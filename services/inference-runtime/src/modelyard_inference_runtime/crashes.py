"""How often a version's process has ended, and what follows: a pause that grows, then no more attempts for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CrashRecord"]

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class CrashRecord:
    """The ends of one version's process. A value: counting returns a new one.

    Attributes:
        limit: ends within the window after which it rests for as long as the window.
        window_s: seconds.
        ends: when, monotonic seconds, oldest first; at most limit.
        reason: of the last one, in words.
    """

    limit: int
    window_s: float
    ends: tuple[float, ...] = ()
    reason: str = ""

    def ended(self, now: float, reason: str) -> CrashRecord:
        """Return the record after one more."""
        recent = tuple(end for end in self.ends if now - end < self.window_s)
        return replace(self, ends=(*recent, now)[-self.limit :], reason=reason)

    def is_quarantined(self, now: float) -> bool:
        """Return whether it may not be started now."""
        return len(self.ends) == self.limit and now - self.ends[-1] < self.window_s

    def pause_s(self, now: float) -> float:
        """Return how long to wait before the next start."""
        if self.is_quarantined(now):
            return self.ends[-1] + self.window_s - now
        recent = sum(now - end < self.window_s for end in self.ends)
        return min(_FIRST_PAUSE_S * 2.0 ** (recent - 1), _LONGEST_PAUSE_S) if recent else 0.0

    def sentence(self, now: float) -> str:
        """Return what there is to say about it."""
        if not self.ends:
            return ""
        if self.is_quarantined(now):
            return (
                f"its process ended {len(self.ends)} times within {self.window_s:.0f} s, the last time because "
                f"{self.reason}; it is not started again for {self.pause_s(now):.0f} s"
            )
        return f"its process ended because {self.reason}, and is started again"
