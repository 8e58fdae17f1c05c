"""Objects through the API server: read whole whatever stands in them, written only where the operator may."""

from __future__ import annotations

from typing import Any

import pytest
from modelyard_common.cluster import Cluster
from modelyard_common.errors import Conflict, Invalid, NotFound
from modelyard_common.testing.api_server import ApiServer
from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_operator.adapters.objects import ClusterObjects, object_of
from modelyard_operator.domain.observed import FINALIZER, Seen
from modelyard_operator.domain.status import status_of
from operator_yard import NOW, document, model, observed, rollout, version

MM = "managedmodels"


@pytest.fixture
def objects(cluster: Cluster) -> ClusterObjects:
    return ClusterObjects(cluster, namespace="default", watch_s=1)


def test_an_object_is_read_without_the_clusters_bookkeeping(objects: ClusterObjects, server: ApiServer) -> None:
    applied = document()
    applied["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    server.create(MM, applied)
    server.create(MM, document("elsewhere"), namespace="other")
    (found,) = objects.all()
    assert (found.name, found.generation, found.deleting, found.finalizers) == ("m", 1, False, ())
    assert found.manifest is not None
    assert found.manifest.to_wire()["metadata"] == {"name": "m"}


def test_objects_are_listed_page_by_page(cluster: Cluster, server: ApiServer) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        server.create(MM, document(name))
    for page in (2, 5, 6):
        found = ClusterObjects(cluster, namespace="default", watch_s=1, page=page).all()
        assert [one.name for one in found] == names


def test_a_spec_that_is_no_policy_is_said_with_its_field(server: ApiServer, objects: ClusterObjects) -> None:
    server.create(MM, document(train={"recipe": {"estimator": "decision_tree"}, "when": [{"cron": "61 * * * *"}]}))
    (found,) = objects.all()
    assert found.manifest is None
    assert "spec.train.when[0].cron" in found.fault
    assert "0 to 59" in found.fault


@pytest.mark.parametrize("status", [{"conditions": "what?"}, {"observedGeneration": "x"}, None])
def test_a_status_that_cannot_be_read_is_written_anew(status: Any) -> None:
    found = object_of(
        document() | {"metadata": {"name": "m", "generation": 1, "resourceVersion": "1"}, "status": status}
    )
    assert found.status == ManagedModelStatus()


def test_a_whole_status_is_taken_by_the_definition_and_read_back(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    view = model(champion=version(), candidate=version(2, "candidate"), rollout=rollout())
    status = status_of(observed(registry=Seen(view)), NOW)
    (found,) = objects.all()
    assert objects.write_status(found, status).status == status
    (found,) = objects.all()
    assert found.status == status
    assert found.generation == 1


def test_what_is_over_leaves_the_status(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    view = model(champion=version(), candidate=version(2, "candidate"), rollout=rollout())
    (found,) = objects.all()
    found = objects.write_status(found, status_of(observed(registry=Seen(view)), NOW))
    objects.write_status(found, status_of(observed(), NOW))
    stored = server.get(MM, "m")["status"]
    assert "candidate" not in stored
    assert stored["step"] == ""


def test_writes_are_about_the_version_that_was_seen(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    (found,) = objects.all()
    server.modify(MM, "m", {"spec": {"paused": True}})
    with pytest.raises(Conflict):
        objects.write_status(found, status_of(observed(), NOW))
    with pytest.raises(Conflict):
        objects.set_finalizers(found, (FINALIZER,))
    server.remove(MM, "m")
    with pytest.raises(NotFound):
        objects.set_finalizers(found, (FINALIZER,))


def test_no_write_has_a_spec(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    (found,) = objects.all()
    found = objects.set_finalizers(found, (FINALIZER,))
    objects.write_status(found, status_of(observed(), NOW))
    assert [set(body or {}) for _, _, body in server.requests] == [{"metadata"}, {"metadata", "status"}]


def test_changes_tell_what_matters_and_go_on_where_they_ended(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    (start,) = (change.version for change in objects.changes(None))
    server.modify(MM, "m", {"spec": {"paused": True}})
    server.modify(MM, "m", {"status": {"next": "x"}}, sub="status")
    server.remove(MM, "m")
    changes = list(objects.changes(start))
    assert [change.mark for change in changes] == [(2, False), (2, False), None]
    assert list(objects.changes(changes[-1].version)) == []


def test_a_forgotten_version_is_told(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    server.compact()
    with pytest.raises(Conflict):
        list(objects.changes("0"))


def test_the_definition_refuses_a_wrong_status(objects: ClusterObjects, server: ApiServer) -> None:
    server.create(MM, document())
    (found,) = objects.all()
    wrong = ManagedModelStatus(next="x" * 1024).model_copy(update={"next": "x" * 2000})
    with pytest.raises(Invalid, match="too long"):
        objects.write_status(found, wrong)
