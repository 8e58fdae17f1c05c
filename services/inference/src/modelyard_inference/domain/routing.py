"""Who answers a request: the routing table as the engine sees it, and the sticky split between its versions.

A routing key always falls into the same one of 10,000 buckets of a candidate, and a candidate with weight w takes
exactly w percent of the buckets, the lowest ones: whoever it answered at 5 % it also answers at 25 %. The hash is
salted with the candidate, so that no key is the guinea pig of every rollout.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

__all__ = ["BUCKETS", "MAX_AHEAD", "Candidate", "Routing", "Version", "bucket", "is_too_far_ahead", "samples"]

BUCKETS = 10_000
MAX_AHEAD = timedelta(minutes=10)
"""How far ahead of the clock an event time may be, unless the model replays recorded events."""


@dataclass(frozen=True, slots=True)
class Version:
    """One governed version of a model."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """The version that is being rolled out.

    Attributes:
        weight: percent of the requests that it answers, 0 to 100.
        shadow: it gets copies of what the champion answers.
    """

    version: Version
    weight: int = 0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """One revision of a model's routing table.

    Attributes:
        log_payloads: share of predictions that are logged with their features, 0 to 1.
        redact: features that are never logged.
        batch_rows: of several requests together, which the model may get at once; None leaves it to the server.
        replay: event times may lie ahead of the clock.
        traceparent: the trace that put it into force; two revisions are the same whoever made them.
    """

    model: str
    revision: int
    champion: Version | None = None
    candidate: Candidate | None = None
    log_payloads: float = 1.0
    redact: frozenset[str] = frozenset()
    batch_rows: int | None = None
    replay: bool = False
    traceparent: str | None = field(default=None, compare=False)

    def most_rows(self, server: int) -> int:
        """Return how many rows a batch may have: what the model's manifest says, or the server where that is less."""
        return server if self.batch_rows is None else min(self.batch_rows, server)

    def picks_candidate(self, key: str) -> bool:
        """Return whether the request with this routing key is the candidate's."""
        candidate = self.candidate
        if candidate is None or candidate.weight <= 0 or candidate.shadow:
            return False
        return bucket(f"{self.model}/{candidate.version.digest}", key) < candidate.weight * (BUCKETS // 100)


def bucket(salt: str, key: str) -> int:
    """Return the bucket of a key, 0 to 9999; always the same for the same salt and key."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=_salt(salt)).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def _salt(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def samples(prediction_id: str, share: float) -> bool:
    """Return whether a prediction is logged with its features; the same for every copy of its answer."""
    if share >= 1.0:
        return True
    return bucket("log-payloads", prediction_id) < round(share * BUCKETS)


def is_too_far_ahead(routing: Routing, event_time: datetime, now: datetime) -> bool:
    """Return whether an event time is refused: it would push the watermark past what is yet to come."""
    return not routing.replay and event_time > now + MAX_AHEAD
