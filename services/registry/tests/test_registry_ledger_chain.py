from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.registry_v1 import LedgerEntry
from modelyard_registry.domain.aliases import alias_changes, desired_aliases
from modelyard_registry.domain.ledger import Entry, Head, append, intact


def chained(count: int) -> list[Entry]:
    head, entries = Head(), []
    for number in range(count):
        at = datetime(2026, 1, 1, 0, number, 0, 120 * number, tzinfo=UTC)
        entry = append(head, at=at, actor="ada", kind="k", model="m", subject="s", body={"n": number, "x": 0.1})
        entries.append(entry)
        head = Head(entry.seq, entry.hash)
    return entries


def head_of(entries: list[Entry]) -> Head:
    return Head(entries[-1].seq, entries[-1].hash)


def test_unbroken_chain_is_intact() -> None:
    assert intact([], Head())
    assert intact(chained(5), head_of(chained(5)))


@pytest.mark.parametrize(
    "change",
    [{"actor": "eve"}, {"body": {"n": 99}}, {"kind": "other"}, {"at": datetime(2020, 1, 1, tzinfo=UTC)}, {"seq": 9}],
    ids=lambda change: next(iter(change)),
)
def test_changed_entry_is_noticed(change: dict[str, Any]) -> None:
    entries = chained(5)
    head = head_of(entries)
    entries[2] = replace(entries[2], **change)
    assert not intact(entries, head)


def test_removed_entries_are_noticed_at_both_ends_and_within() -> None:
    entries = chained(5)
    for gone in range(5):
        assert not intact(entries[:gone] + entries[gone + 1 :], head_of(entries))


def test_hash_is_over_the_entry_as_the_api_shows_it() -> None:
    import hashlib

    for entry in chained(3):
        shown = LedgerEntry(
            seq=entry.seq, at=entry.at, actor=entry.actor, kind=entry.kind, model=entry.model,
            subject=entry.subject, body=dict(entry.body), previous=entry.previous, hash=entry.hash,
        )  # fmt: skip
        fields = shown.model_dump(mode="json", exclude={"hash"})
        assert hashlib.sha256(canonical_json(fields)).hexdigest() == entry.hash


versions = st.one_of(st.none(), st.integers(1, 9).map(str))


@given(
    champion=versions,
    candidate=versions,
    had=st.dictionaries(st.sampled_from(["champion", "candidate", "mine"]), st.just("1")),
)
def test_alias_changes_lead_to_what_is_desired_and_then_stop(
    champion: str | None, candidate: str | None, had: dict[str, str]
) -> None:
    desired, actual = desired_aliases(champion, candidate), dict(had)
    for change in alias_changes(desired, actual):
        if change.version is None:
            del actual[change.alias]
        else:
            actual[change.alias] = change.version
    assert {alias: version for alias, version in actual.items() if alias != "mine"} == desired
    assert actual.get("mine") == had.get("mine")
    assert alias_changes(desired, actual) == ()
