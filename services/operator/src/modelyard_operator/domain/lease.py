"""Who leads: the rules of a Lease, as pure functions.

A lease is taken from a holder that was seen not to renew it for its whole duration, measured by our own clock from
when we first saw its last renewal: the clocks of two machines are never compared. The holder stops earlier than that
by a margin. Two leaders at a time would do no harm (every write is idempotent or about a version), only more work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Lease", "Sighted", "bid", "holds_for_s", "released"]


@dataclass(frozen=True, slots=True)
class Lease:
    """The record."""

    holder: str
    renewed: str
    """When, as its holder wrote it; only compared for being the same."""
    acquired: str
    duration_s: int
    transitions: int = 0
    version: str = ""
    """The resource version; empty before it exists."""


@dataclass(frozen=True, slots=True)
class Sighted:
    """A lease, and since when (seconds, monotonic) it was seen just so."""

    lease: Lease
    since: float

    def seen_again(self, lease: Lease, now: float) -> Sighted:
        """Return the sighting after another look."""
        same = (lease.holder, lease.renewed) == (self.lease.holder, self.lease.renewed)
        return Sighted(lease, self.since if same else now)


def bid(sighted: Sighted | None, me: str, *, now: float, stamp: str, duration_s: int) -> Lease | None:
    """Return the lease to write in order to get or keep it; None when it is another's.

    Args:
        sighted: what was read; None when there is no lease.
        me: the bidder.
        now: seconds, monotonic.
        stamp: the wall time, for the record.
        duration_s: for how long.
    """
    if sighted is None:
        return Lease(me, stamp, stamp, duration_s)
    lease = sighted.lease
    if lease.holder == me:
        return replace(lease, renewed=stamp, duration_s=duration_s)
    if lease.holder and now < sighted.since + lease.duration_s:
        return None
    return Lease(me, stamp, stamp, duration_s, lease.transitions + 1, lease.version)


def holds_for_s(duration_s: int) -> float:
    """Return for how long a holder may act after it asked for a renewal: a third is left for slow calls."""
    return duration_s * 2 / 3


def released(lease: Lease) -> Lease:
    """Return the lease as a holder leaves it that goes: anybody may take it at once."""
    return replace(lease, holder="")
