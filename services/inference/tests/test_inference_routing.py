"""The sticky split, and the laws of the breaker and the routing file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import NOW, digest_of
from modelyard_inference.adapters.routing_tables import RoutingFile, routing_from, table_from
from modelyard_inference.domain.breaker import Breaker
from modelyard_inference.domain.routing import Candidate, Routing, Version, bucket, is_too_far_ahead, samples

ROUTING = Routing("power", 3, Version(1, digest_of("a")), Candidate(Version(2, digest_of("b")), weight=25))


def at_weight(weight: int, letter: str = "b") -> Routing:
    return replace(ROUTING, candidate=Candidate(Version(2, digest_of(letter)), weight=weight))


@given(st.text(), st.integers(0, 100), st.integers(0, 100))
def test_a_key_that_the_candidate_answers_stays_with_it_while_the_weight_grows(key: str, one: int, two: int) -> None:
    low, high = sorted((one, two))

    assert not at_weight(low).picks_candidate(key) or at_weight(high).picks_candidate(key)


@given(st.text())
def test_nobody_and_everybody(key: str) -> None:
    assert not at_weight(0).picks_candidate(key)
    assert at_weight(100).picks_candidate(key)


@given(st.text())
def test_a_key_goes_the_same_way_whatever_the_revision(key: str) -> None:
    later = replace(ROUTING, revision=9)

    assert ROUTING.picks_candidate(key) == later.picks_candidate(key)


@pytest.mark.parametrize("weight", [1, 5, 25, 50])
def test_the_candidate_gets_its_share_of_many_keys(weight: int) -> None:
    routing = at_weight(weight)

    got = sum(routing.picks_candidate(f"customer-{number}") for number in range(20_000)) / 200

    assert got == pytest.approx(weight, abs=1)


def test_another_candidate_picks_other_keys() -> None:
    keys = [f"customer-{number}" for number in range(2_000)]

    first = {key for key in keys if at_weight(10, "b").picks_candidate(key)}
    second = {key for key in keys if at_weight(10, "c").picks_candidate(key)}

    assert len(first & second) < len(first) / 3


def test_a_shadow_answers_nobody() -> None:
    shadow = replace(ROUTING, candidate=Candidate(Version(2, digest_of("b")), weight=100, shadow=True))

    assert not shadow.picks_candidate("key")


def test_the_buckets_of_a_key_never_change() -> None:
    # Goldens: another hash would send every customer elsewhere in the middle of a rollout.
    assert [bucket("power/x", key) for key in ("", "a", "ü")] == [7905, 4344, 3641]


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_what_is_sampled_stays_sampled_when_more_is(identity: str, one: float, two: float) -> None:
    low, high = sorted((one, two))

    assert not samples(identity, low) or samples(identity, high)
    assert samples(identity, 1.0)
    assert not samples(identity, 0.0)


def test_event_times_may_lie_ten_minutes_ahead_and_no_more() -> None:
    assert not is_too_far_ahead(ROUTING, NOW + timedelta(minutes=10), NOW)
    assert is_too_far_ahead(ROUTING, NOW + timedelta(minutes=10, seconds=1), NOW)
    assert not is_too_far_ahead(replace(ROUTING, replay=True), NOW + timedelta(days=1), NOW)


def test_the_breaker_trips_after_failures_in_a_row_and_stays_tripped() -> None:
    breaker = Breaker(limit=3).failed().failed().succeeded().failed().failed()

    assert not breaker.tripped
    assert breaker.failed().tripped
    assert breaker.failed().succeeded().tripped


@given(
    st.builds(
        Routing,
        model=st.just("power"),
        revision=st.integers(0, 10**6),
        champion=st.none() | st.just(Version(1, digest_of("a"))),
        candidate=st.none()
        | st.builds(
            Candidate, version=st.just(Version(2, digest_of("b"))), weight=st.integers(0, 100), shadow=st.booleans()
        ),
        log_payloads=st.floats(0, 1),
        redact=st.frozensets(st.text(max_size=4), max_size=3),
        replay=st.booleans(),
    )
)
def test_a_routing_survives_the_way_to_the_wire_and_back(routing: Routing) -> None:
    assert routing_from(table_from(routing)) == routing


def test_the_routing_file_gives_back_what_was_saved_and_survives_damage(tmp_path: Path) -> None:
    file = RoutingFile(tmp_path / "deep" / "routing.json")
    assert file.load() == []

    file.save([ROUTING])
    assert file.load() == [ROUTING]

    (tmp_path / "deep" / "routing.json").write_text("{")
    assert file.load() == []


def test_a_disk_that_refuses_the_routing_file_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")

    RoutingFile(tmp_path / "taken" / "routing.json").save([ROUTING])
