"""The lease: one leader at a time, a successor when it vanishes, none that leads without the cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.cluster import Cluster
from modelyard_common.errors import Unavailable
from modelyard_common.testing import FakeClock
from modelyard_common.testing.api_server import ApiServer, Refusal
from modelyard_operator.adapters.leases import ClusterLeases
from modelyard_operator.domain.lease import Lease, Sighted, bid, holds_for_s, released
from modelyard_operator.usecases.lead import Lead

DURATION_S = 15
THEIRS = Lease("other", "t1", "t0", DURATION_S, 3, "7")


def mine(sighted: Sighted | None, now: float) -> Lease | None:
    return bid(sighted, "me", now=now, stamp="t2", duration_s=DURATION_S)


def test_a_lease_that_nobody_has_is_taken() -> None:
    assert mine(None, 0) == Lease("me", "t2", "t2", DURATION_S)
    taken = mine(Sighted(released(THEIRS), 0), 0)
    assert taken == Lease("me", "t2", "t2", DURATION_S, 4, "7")


def test_ones_own_lease_is_renewed_and_keeps_its_history() -> None:
    lease = Lease("me", "t1", "t0", DURATION_S, 3, "7")
    assert mine(Sighted(lease, 0), 100) == Lease("me", "t2", "t0", DURATION_S, 3, "7")


def test_anothers_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() -> None:
    assert mine(Sighted(THEIRS, 0), DURATION_S - 0.1) is None
    assert mine(Sighted(THEIRS, 0), DURATION_S) is not None


@given(renewals=st.lists(st.floats(0.1, DURATION_S - 0.1), min_size=1, max_size=20))
def test_a_holder_that_renews_in_time_is_never_robbed(renewals: list[float]) -> None:
    now, sighted = 0.0, Sighted(THEIRS, 0.0)
    for number, pause in enumerate(renewals):
        now += pause
        assert mine(sighted, now) is None
        sighted = sighted.seen_again(Lease("other", f"r{number}", "t0", DURATION_S), now)


def test_a_holder_stops_before_anybody_may_take_its_place() -> None:
    assert holds_for_s(DURATION_S) < DURATION_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def contender(cluster: Cluster, clock: FakeClock, name: str) -> Lead:
    return Lead(ClusterLeases(cluster, namespace="default", name="operator"), clock, name, DURATION_S)


def test_of_two_one_leads_and_the_other_follows_when_it_vanishes(cluster: Cluster, clock: FakeClock) -> None:
    first, second = contender(cluster, clock, "first"), contender(cluster, clock, "second")
    for _ in range(5):
        first()
        second()
        assert (first.holds(), second.holds()) == (True, False)
        clock.advance(5)
    clock.advance(DURATION_S)
    assert not first.holds()
    second()
    assert second.holds()
    first()
    assert not first.holds()


def test_one_that_goes_leaves_the_lease_to_the_next_at_once(
    cluster: Cluster, clock: FakeClock, server: ApiServer
) -> None:
    first, second = contender(cluster, clock, "first"), contender(cluster, clock, "second")
    first()
    second()
    first.release()
    assert "holderIdentity" not in server.get("leases", "operator")["spec"]
    second()
    assert (first.holds(), second.holds()) == (False, True)
    assert server.get("leases", "operator")["spec"]["leaseTransitions"] == 1
    assert server.get("leases", "operator")["spec"]["renewTime"].endswith("Z")


def test_the_lease_goes_with_its_owner_whoever_wrote_it_last(
    cluster: Cluster, clock: FakeClock, server: ApiServer
) -> None:
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "operator", "uid": "5d1c2f0e"}
    lead = Lead(ClusterLeases(cluster, namespace="default", name="operator", owner=owner), clock, "first", DURATION_S)

    lead()
    made = server.get("leases", "operator")["metadata"]["ownerReferences"]
    clock.advance(5)
    lead()

    assert made == server.get("leases", "operator")["metadata"]["ownerReferences"] == [owner]


def test_one_that_was_slower_does_not_lead(cluster: Cluster, clock: FakeClock, server: ApiServer) -> None:
    first = contender(cluster, clock, "first")
    server.refusals.append(Refusal(409, "AlreadyExists", "leases already exists"))
    first()
    assert not first.holds()


def test_a_leader_that_cannot_reach_the_cluster_stops_leading_by_itself(
    cluster: Cluster, clock: FakeClock, server: ApiServer
) -> None:
    told: list[str] = []
    first = contender(cluster, clock, "first")
    first.took = lambda: told.append("took")
    first()
    server.away = True
    clock.advance(holds_for_s(DURATION_S) - 1)
    with pytest.raises(Unavailable):
        first()
    assert first.holds()
    clock.advance(1)
    assert not first.holds()
    first.release()
    server.away = False
    first()
    assert told == ["took", "took"]
