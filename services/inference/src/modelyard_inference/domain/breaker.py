"""When to stop asking a candidate: after several failures in a row it gets no more requests here."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Breaker"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """Counts failures in a row. A value: counting returns a new one.

    Once tripped it stays so; a new rollout begins with a new breaker.

    Attributes:
        limit: how many failures in a row trip it.
    """

    limit: int = 3
    failures: int = 0
    tripped: bool = False

    def failed(self) -> Breaker:
        """Return the breaker after one more failure."""
        failures = self.failures + 1
        return replace(self, failures=failures, tripped=self.tripped or failures >= self.limit)

    def succeeded(self) -> Breaker:
        """Return the breaker after an answer."""
        return replace(self, failures=0) if self.failures else self
