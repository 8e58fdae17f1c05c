"""The door to a Kubernetes API server: what its answers mean, and what becomes of a server that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard_common.cluster import Cluster
from modelyard_common.errors import Conflict, Invalid, NotFound, Unauthenticated, Unavailable
from modelyard_common.testing import free_port, running
from modelyard_common.testing.api_server import ApiServer, Refusal, kubeconfig_of

JOBS = "/apis/batch/v1/namespaces/default/jobs"


@pytest.fixture
def server() -> ApiServer:
    return ApiServer(token="t0ken")


@pytest.fixture
def cluster(server: ApiServer, tmp_path: Path) -> Iterator[Cluster]:
    with running(server.app) as url, Cluster.connect(kubeconfig_of(tmp_path, url, token="t0ken"), timeout_s=5) as found:
        yield found


def job(name: str, **labels: str) -> dict:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"suspend": False}}


def test_an_object_is_created_read_patched_and_listed(cluster: Cluster) -> None:
    cluster.create(JOBS, job("a", run="1"))
    cluster.create(JOBS, job("b", run="2"))

    assert cluster.patch(f"{JOBS}/a", {"spec": {"suspend": True}})["spec"] == {"suspend": True}
    assert cluster.get(f"{JOBS}/a")["metadata"]["generation"] == 2
    found = cluster.get(JOBS, labelSelector="run=2", limit=None)["items"]
    assert [item["metadata"]["name"] for item in found] == ["b"]


def test_a_status_is_written_apart_from_the_spec(cluster: Cluster) -> None:
    cluster.create(JOBS, job("a"))

    cluster.patch(f"{JOBS}/a/status", {"status": {"active": 1}, "spec": {"suspend": True}})

    found = cluster.get(f"{JOBS}/a")
    assert (found["status"], found["spec"], found["metadata"]["generation"]) == ({"active": 1}, {"suspend": False}, 1)


def test_answers_become_errors_with_the_servers_words(cluster: Cluster, server: ApiServer) -> None:
    cluster.create(JOBS, job("a"))
    with pytest.raises(Conflict, match="already exists"):
        cluster.create(JOBS, job("a"))
    with pytest.raises(NotFound, match='jobs "z" not found'):
        cluster.get(f"{JOBS}/z")
    stale = cluster.get(f"{JOBS}/a")
    cluster.patch(f"{JOBS}/a", {"spec": {"suspend": True}})
    with pytest.raises(Conflict, match="has been modified"):
        cluster.replace(f"{JOBS}/a", stale)
    with pytest.raises(Conflict, match="has been modified"):
        cluster.patch(f"{JOBS}/a", {"metadata": {"resourceVersion": stale["metadata"]["resourceVersion"]}})
    server.check = lambda plural, document: "spec.suspend: must be true"
    with pytest.raises(Invalid, match=r"spec\.suspend"):
        cluster.create(JOBS, job("b"))


def test_a_quota_that_is_used_up_is_not_for_ever(cluster: Cluster, server: ApiServer) -> None:
    server.refusals.append(Refusal(403, "Forbidden", 'jobs "a" is forbidden: exceeded quota: small'))

    with pytest.raises(Unavailable, match="exceeded quota"):
        cluster.create(JOBS, job("a"))


def test_a_server_that_is_overloaded_or_gone_is_unavailable(
    cluster: Cluster, server: ApiServer, tmp_path: Path
) -> None:
    server.away = True
    with pytest.raises(Unavailable, match="currently unable"):
        cluster.get(JOBS)
    nobody = Cluster.connect(kubeconfig_of(tmp_path, f"http://127.0.0.1:{free_port()}"), timeout_s=1)
    with pytest.raises(Unavailable, match="cannot be reached"):
        nobody.get(JOBS)


def test_a_wrong_token_is_refused(server: ApiServer, tmp_path: Path) -> None:
    with (
        running(server.app) as url,
        Cluster.connect(kubeconfig_of(tmp_path, url, token="other"), timeout_s=5) as cluster,
        pytest.raises(Unauthenticated),
    ):
        cluster.get(JOBS)


def test_a_watch_tells_what_happens_after_a_version_and_ends(cluster: Cluster, server: ApiServer) -> None:
    server.create("jobs", job("before"))
    since = cluster.get(JOBS)["metadata"]["resourceVersion"]
    server.create("jobs", job("after"))
    server.create("pods", job("other"))
    server.remove("jobs", "before")

    events = [(e["type"], e["object"]["metadata"]["name"]) for e in _watch(cluster, since)]

    assert events == [("ADDED", "after"), ("DELETED", "before")]


def test_a_watch_from_a_forgotten_version_says_so(cluster: Cluster, server: ApiServer) -> None:
    server.create("jobs", job("a"))
    since = cluster.get(JOBS)["metadata"]["resourceVersion"]
    server.create("jobs", job("b"))
    server.compact()

    with pytest.raises(Conflict, match="too old"):
        list(_watch(cluster, since))


def _watch(cluster: Cluster, since: str) -> Iterator[dict]:
    return cluster.watch(JOBS, resource_version=since, timeout_s=1)


def test_an_object_with_finalizers_stays_until_they_are_gone(cluster: Cluster, server: ApiServer) -> None:
    cluster.create(JOBS, {"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": {}})
    server.remove("jobs", "a")
    assert cluster.get(f"{JOBS}/a")["metadata"]["deletionTimestamp"]

    cluster.patch(f"{JOBS}/a", {"metadata": {"finalizers": []}})

    with pytest.raises(NotFound):
        cluster.get(f"{JOBS}/a")


def test_without_a_pod_or_a_file_there_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="set kubeconfig"):
        Cluster.connect()
    with pytest.raises(Invalid, match="no way to the Kubernetes API"):
        Cluster.connect(tmp_path / "nothing")
