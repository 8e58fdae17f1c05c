"""Lead: take the lease or keep it, and know at any moment whether it is still ours.

Whoever asks gets the answer from our own clock, never from a call: a leader that cannot reach the cluster stops being
one by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelyard_common.clock import Clock
from modelyard_common.errors import Conflict, ModelyardError
from modelyard_common.logs import get_logger

from modelyard_operator.domain.lease import Sighted, bid, holds_for_s, released
from modelyard_operator.domain.ports import Leases

__all__ = ["Lead"]

log = get_logger(__name__)


@dataclass(slots=True)
class Lead:
    """Competes for one lease."""

    leases: Leases
    clock: Clock
    me: str
    duration_s: int
    took: Callable[[], None] = lambda: None
    """Told when the lease became ours."""
    _sighted: Sighted | None = None
    _until: float = field(default=float("-inf"))

    def __call__(self) -> None:
        """Bid once; raise Unavailable when the cluster is away."""
        asked = self.clock.monotonic()
        lease = self.leases.read()
        if lease is None:
            self._sighted = None
        else:
            self._sighted = self._sighted.seen_again(lease, asked) if self._sighted else Sighted(lease, asked)
        wanted = bid(
            self._sighted,
            self.me,
            now=asked,
            stamp=self.clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
            duration_s=self.duration_s,
        )
        if wanted is None:
            self._until = float("-inf")
            return
        led = self.holds()
        try:
            self._sighted = Sighted(self.leases.write(wanted), asked)
        except Conflict:
            return  # somebody was faster; the next look tells who
        self._until = asked + holds_for_s(self.duration_s)
        if not led:
            log.info("leader.took", identity=self.me)
            self.took()

    def holds(self) -> bool:
        """Return whether we lead now."""
        return self.clock.monotonic() < self._until

    def release(self) -> None:
        """Give the lease up, so that a successor need not wait."""
        if not self.holds() or self._sighted is None:
            return
        self._until = float("-inf")
        try:
            self.leases.write(released(self._sighted.lease))
        except ModelyardError as exc:
            log.warning("leader.release_failed", reason=exc.message)
