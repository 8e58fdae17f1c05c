"""The ledger's chain: every entry holds the hash of the one before, so that no entry can be changed unseen.

The hash is SHA-256 over the canonical JSON of all other fields of an entry, exactly as the API shows them: anybody
who has read the ledger can verify it. Deleting the newest entries is seen too, since the head is kept apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard_contracts.canonical import canonical_json

__all__ = ["GENESIS", "Entry", "Head", "append", "entry_hash", "intact"]

GENESIS = "0" * 64
"""What the first entry has as its predecessor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact that was decided."""

    seq: int
    at: datetime
    actor: str
    kind: str
    model: str
    subject: str
    body: Mapping[str, Any]
    previous: str
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain."""

    seq: int = 0
    hash: str = GENESIS


def entry_hash(entry: Entry) -> str:
    """Return the hash of all fields of entry but its hash."""
    fields = {
        "seq": entry.seq,
        "at": entry.at.isoformat().replace("+00:00", "Z"),
        "actor": entry.actor,
        "kind": entry.kind,
        "model": entry.model,
        "subject": entry.subject,
        "body": dict(entry.body),
        "previous": entry.previous,
    }
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def append(
    head: Head, *, at: datetime, actor: str, kind: str, model: str, subject: str, body: Mapping[str, Any]
) -> Entry:
    """Return the entry that follows head."""
    entry = Entry(head.seq + 1, at, actor, kind, model, subject, body, head.hash)
    return Entry(entry.seq, at, actor, kind, model, subject, body, head.hash, entry_hash(entry))


def intact(entries: Iterable[Entry], head: Head) -> bool:
    """Return whether entries, from the first, form an unbroken chain that ends at head."""
    last = Head()
    for entry in entries:
        if entry.seq != last.seq + 1 or entry.previous != last.hash or entry_hash(entry) != entry.hash:
            return False
        last = Head(entry.seq, entry.hash)
    return last == head
