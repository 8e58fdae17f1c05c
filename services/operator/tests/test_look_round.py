"""Rounds over a cluster and the platform's own services: policies arrive, statuses tell the truth, outages pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from modelyard_client import DriftClient, InferenceClient, RegistryClient, TrainingClient
from modelyard_common.cluster import Cluster
from modelyard_common.errors import Conflict, Denied, Invalid, ModelyardError, NotFound, Unauthenticated, Unavailable
from modelyard_common.testing import FakeClock
from modelyard_common.testing.api_server import ApiServer, Refusal
from modelyard_common.testing.spans import recording_spans
from modelyard_contracts.problem import FieldError
from modelyard_operator.adapters.objects import ClusterObjects
from modelyard_operator.adapters.peers import ServicePeers
from modelyard_operator.domain.observed import FINALIZER
from modelyard_operator.domain.reconcile import Action, Apply
from modelyard_operator.usecases.follow import Follow
from modelyard_operator.usecases.look_round import LookRound
from operator_yard import document, spec

MM = "managedmodels"


class Yard:
    """One operator without its threads."""

    def __init__(self, cluster: Cluster, server: ApiServer, registry_url: str, nowhere: str) -> None:
        self.server, self.clock = server, FakeClock()
        self.objects = ClusterObjects(cluster, namespace="default", watch_s=1)
        self.registry = RegistryClient(registry_url, timeout_s=5)
        self.nowhere = nowhere
        self.actions: list[Action] = []
        self.failed: list[str] = []
        self.leads = True
        self.look = self.operator(self.registry)

    def operator(self, registry: RegistryClient) -> LookRound:
        peers = ServicePeers(
            registry,
            TrainingClient(self.nowhere, timeout_s=1),
            DriftClient(self.nowhere, timeout_s=1),
            InferenceClient(self.nowhere, timeout_s=1),
        )
        return LookRound(self.objects, peers, self.clock, lambda: self.leads, self.actions.append, self.failed.append)

    def status(self, name: str = "m") -> dict[str, Any]:
        found: dict[str, Any] = self.server.get(MM, name).get("status", {})
        return found

    def condition(self, kind: str, name: str = "m") -> tuple[str, str, str]:
        (found,) = (c for c in self.status(name)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]


@pytest.fixture
def yard(cluster: Cluster, server: ApiServer, registry_url: str, nowhere: str) -> Iterator[Yard]:
    made = Yard(cluster, server, registry_url, nowhere)
    yield made
    made.registry.close()


def test_a_policy_that_is_applied_is_a_trace_that_the_registry_goes_on_with(yard: Yard) -> None:
    yard.server.create(MM, document())
    with recording_spans() as spans:
        yard.look()
        yard.look()

        applied, asked = spans.one("apply model"), spans.one("PUT")
        served = spans.one("PUT /v1/models/{name}")
    assert (applied.parent, dict(applied.attributes or {})) == (None, {"modelyard.model": "m"})
    assert asked.parent is not None and asked.parent.span_id == applied.context.span_id
    assert served.parent is not None and served.parent.span_id == asked.context.span_id


def test_an_object_becomes_a_policy_and_its_status_tells(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    assert yard.registry.model("m").spec["task"] == "classification"
    stored = yard.server.get(MM, "m")
    assert stored["metadata"]["finalizers"] == [FINALIZER]
    assert (stored["metadata"]["generation"], stored["status"]["observedGeneration"]) == (1, 1)
    assert yard.condition("Accepted")[:2] == ("True", "Applied")
    assert yard.condition("Ready")[:2] == ("False", "NoChampion")
    assert yard.condition("Trained")[:2] == ("Unknown", "TrainingAway")
    assert stored["spec"] == spec()


def test_a_second_round_changes_nothing(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    before, done = yard.server.get(MM, "m"), len(yard.actions)
    yard.clock.advance(3600)
    yard.look()
    assert (yard.server.get(MM, "m"), len(yard.actions)) == (before, done)
    assert yard.registry.model("m").generation == 1


def test_a_changed_spec_reaches_the_registry_and_moves_the_observed_generation(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    yard.server.modify(MM, "m", {"spec": {"description": "better"}})
    yard.look()
    assert yard.registry.model("m").spec["description"] == "better"
    assert yard.status()["observedGeneration"] == 2


def test_what_somebody_changed_in_the_registry_is_put_back(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    (found,) = yard.objects.all()
    assert found.manifest is not None
    policy = found.manifest.spec.model_copy(update={"description": "by hand"})
    yard.registry.apply(found.manifest.model_copy(update={"spec": policy}))
    yard.look()
    assert yard.registry.model("m").spec.get("description", "") == ""


def test_a_registry_that_is_away_is_waited_for_and_the_generation_stays_unobserved(yard: Yard) -> None:
    yard.server.create(MM, document())
    away = yard.operator(RegistryClient(yard.nowhere, timeout_s=1))
    away()
    assert yard.condition("Accepted")[:2] == ("Unknown", "RegistryAway")
    assert yard.status()["observedGeneration"] == 0
    assert set(away.away) == {"registry", "training", "drift", "inference"}
    yard.look()
    assert yard.status()["observedGeneration"] == 1


def test_a_deleted_object_goes_when_its_model_is_deleted(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    yard.server.remove(MM, "m")
    yard.operator(RegistryClient(yard.nowhere, timeout_s=1))()
    assert yard.condition("Ready")[:2] == ("False", "Deleting")
    yard.look()
    with pytest.raises(Refusal, match="not found"):
        yard.server.get(MM, "m")
    assert yard.registry.models() == []
    yard.look()


def test_the_deletion_policy_that_was_set_last_is_the_one_that_holds(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    yard.server.modify(MM, "m", {"spec": {"deletionPolicy": "delete"}})
    yard.server.remove(MM, "m")
    yard.look()
    kinds = [(entry.kind, entry.body.get("policy")) for entry in yard.registry.ledger("m").items]
    assert ("model.deleted", "delete") in kinds


def test_a_policy_that_is_no_policy_is_said_and_the_last_one_stays_in_force(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.look()
    yard.server.modify(MM, "m", {"spec": {"train": {"when": [{"cron": "61 * * * *"}]}}})
    yard.look()
    assert yard.condition("Accepted")[:2] == ("False", "Refused")
    assert "61" in yard.condition("Stalled")[2]
    assert yard.status()["observedGeneration"] == 2
    assert "when" not in yard.registry.model("m").spec["train"]


def test_a_refused_policy_is_tried_again_after_a_growing_while(yard: Yard) -> None:
    refusals = Refusing(yard.look.peers)
    yard.look.peers = refusals
    yard.server.create(MM, document())
    tried = []
    for _ in range(8):
        yard.look()
        tried.append(refusals.asked)
        yard.clock.advance(5)
    assert yard.condition("Accepted") == ("False", "Refused", "not today: spec.task: no")
    assert tried == [1, 2, 2, 3, 3, 3, 3, 4]
    assert not any(isinstance(action, Apply) for action in yard.actions)
    refusals.willing = True
    yard.clock.advance(300)
    yard.look()
    assert yard.condition("Accepted")[:2] == ("True", "Applied")


@pytest.mark.parametrize("error", [Denied("not your token"), Conflict("it is being restored")])
def test_a_registry_that_will_not_delete_keeps_the_object_and_is_quoted(yard: Yard, error: ModelyardError) -> None:
    yard.server.create(MM, document())
    yard.look()
    refusals = Refusing(yard.look.peers)
    refusals.error, yard.look.peers = error, refusals
    yard.server.remove(MM, "m")
    yard.look()
    assert yard.server.get(MM, "m")["metadata"]["finalizers"] == [FINALIZER]
    assert error.message in yard.status()["next"]
    refusals.willing = True
    yard.look()
    assert yard.server.all(MM) == []


def test_a_token_that_the_registry_does_not_take_is_no_fault_of_the_policy(yard: Yard) -> None:
    refusals = Refusing(yard.look.peers)
    refusals.error, yard.look.peers = Unauthenticated("no such token"), refusals
    yard.server.create(MM, document())
    yard.look()
    assert yard.condition("Accepted") == ("Unknown", "RegistryAway", "registry refuses: no such token")
    assert yard.condition("Stalled")[0] == "False"


class Refusing:
    """The real services, behind a registry that refuses policies and deletions."""

    def __init__(self, peers: Any) -> None:
        self.peers, self.asked, self.willing = peers, 0, False
        self.error: ModelyardError = Invalid("not today", errors=(FieldError(path="spec.task", message="no"),))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.peers, name)

    def delete(self, name: str) -> None:
        if not self.willing:
            raise self.error
        self.peers.delete(name)

    def apply(self, manifest: Any) -> Any:
        if self.willing:
            return self.peers.apply(manifest)
        self.asked += 1
        raise self.error


def test_one_object_that_fails_keeps_no_other_waiting(yard: Yard) -> None:
    yard.server.create(MM, document("a"))
    yard.server.create(MM, document("b"))
    yard.server.refusals.append(Refusal(403, "Forbidden", "no"))
    yard.look()
    assert yard.failed == ["a"]
    assert yard.status("b")["observedGeneration"] == 1
    yard.look()
    assert yard.status("a")["observedGeneration"] == 1


def test_an_object_that_changes_under_the_operator_is_looked_at_again(yard: Yard) -> None:
    yard.server.create(MM, document())
    yard.server.refusals.append(Refusal(409, "Conflict", "modified"))
    yard.look()
    assert yard.failed == []
    yard.look()
    assert yard.status()["observedGeneration"] == 1


def test_a_cluster_that_is_away_ends_the_round(yard: Yard) -> None:
    yard.server.away = True
    with pytest.raises(Unavailable):
        yard.look()
    assert yard.look.listed is None


def test_who_does_not_lead_looks_and_does_nothing(yard: Yard) -> None:
    yard.leads = False
    yard.server.create(MM, document())
    yard.look()
    assert (yard.actions, yard.look.listed is not None) == ([], True)
    with pytest.raises(NotFound):
        yard.registry.model("m")


def test_only_changes_of_policy_wake_a_round(yard: Yard) -> None:
    woken: list[int] = []
    follow = Follow(yard.objects, lambda: woken.append(1))
    yard.server.create(MM, document())
    follow()
    yard.look()
    follow()
    first = len(woken)
    yard.server.modify(MM, "m", {"status": {"next": "x"}}, sub="status")
    follow()
    assert len(woken) == first
    yard.server.modify(MM, "m", {"spec": {"paused": True}})
    follow()
    assert len(woken) == first + 1
    yard.server.compact()
    yard.server.modify(MM, "m", {"spec": {"paused": False}})
    yard.server.compact()
    follow()
    assert len(woken) == first + 2
