"""Projects allow exactly what is rendered: nothing that is needed is refused, nothing else is allowed."""

from __future__ import annotations

import copy

import pytest

from tests.argocd.argo import CLUSTER_SCOPED, Checkout, group_of, is_helm_test, refusals
from tests.chart.rendering import Document, of_kind

ENVIRONMENTS = ("dev", "staging", "production")
# Not in the repository as it is: models are a team's own, and rules come with the first file of them.
TO_COME = {("modelyard.dev", "ManagedModel"), ("monitoring.coreos.com", "PrometheusRule")}


def projects(checkout: Checkout) -> dict[str, Document]:
    everything = [*checkout.by_hand(), *checkout.objects()]
    return {one["metadata"]["name"]: one for one in of_kind(everything, "AppProject")}


def objects_of(checkout: Checkout, application: Document) -> list[Document]:
    return [one for one in checkout.render(application) if not is_helm_test(one)]


def test_every_project_allows_what_its_applications_make(checkout: Checkout) -> None:
    known = projects(checkout)

    for application in [checkout.root(), *checkout.applications()]:
        project = known[application["spec"]["project"]]

        assert refusals(project, application, objects_of(checkout, application)) == []


def test_no_project_allows_a_kind_that_nobody_makes(checkout: Checkout) -> None:
    made: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for application in checkout.applications():
        for one in objects_of(checkout, application):
            made[one["kind"] in CLUSTER_SCOPED].add((group_of(one), one["kind"]))
    root = {(group_of(one), one["kind"]) for one in checkout.objects()}

    for name, project in projects(checkout).items():
        cluster = _kinds(project, "clusterResourceWhitelist")
        namespaced = _kinds(project, "namespaceResourceWhitelist")
        if name == "modelyard-root":
            assert (cluster, namespaced) == (set(), root)
        elif name == "modelyard-platform":
            assert (cluster, namespaced) == (made[True], set())
        else:
            assert (cluster, namespaced) == (set(), made[False] | TO_COME)


def _kinds(project: Document, field: str) -> set[tuple[str, str]]:
    return {(one["group"], one["kind"]) for one in project["spec"].get(field, [])}


def test_what_is_allowed_is_never_a_pattern_and_never_everything(checkout: Checkout) -> None:
    for name, project in projects(checkout).items():
        spec = dict(project["spec"])
        forbidden = spec.pop("namespaceResourceBlacklist", [])

        assert "*" not in str(spec), name
        # Argo CD allows all kinds of a namespace where none is listed.
        assert spec.get("namespaceResourceWhitelist") or forbidden == [{"group": "*", "kind": "*"}], name


def test_the_platform_s_project_refuses_what_is_in_a_namespace(checkout: Checkout) -> None:
    project = projects(checkout)["modelyard-platform"]
    [application] = [one for one in checkout.applications() if one["metadata"]["name"] == "modelyard-crds-main"]

    assert refusals(project, application, [_object("v1", "ConfigMap")]) == ["/ConfigMap"]
    assert refusals(project, application, [_object("v1", "Namespace")]) == []
    assert refusals(project, application, [_object("v1", "PersistentVolume")]) == ["/PersistentVolume"]


def test_a_project_of_its_own_is_made_for_each_environment(checkout: Checkout) -> None:
    found = projects(checkout)

    assert set(found) == {"modelyard-root", "modelyard-platform", *(f"modelyard-{one}" for one in ENVIRONMENTS)}
    for name in ENVIRONMENTS:
        assert found[f"modelyard-{name}"]["spec"]["destinations"] == [
            {"server": "https://kubernetes.default.svc", "namespace": f"modelyard-{name}"}
        ]


def _object(api_version: str, kind: str, namespace: str | None = None) -> Document:
    metadata = {"name": "x"} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


INTRUDERS = [
    pytest.param(_object("v1", "Namespace"), "/Namespace", id="namespace"),
    pytest.param(_object("apiextensions.k8s.io/v1", "CustomResourceDefinition"), "CustomResource", id="definition"),
    pytest.param(_object("rbac.authorization.k8s.io/v1", "ClusterRole"), "/ClusterRole", id="cluster role"),
    pytest.param(_object("v1", "Secret"), "/Secret", id="secret"),
    pytest.param(_object("v1", "Pod"), "/Pod", id="bare pod"),
    pytest.param(_object("v1", "ResourceQuota"), "/ResourceQuota", id="quota"),
    pytest.param(_object("argoproj.io/v1alpha1", "Application", "argocd"), "argoproj.io/Application", id="application"),
    pytest.param(_object("argoproj.io/v1alpha1", "AppProject", "argocd"), "argoproj.io/AppProject", id="project"),
    pytest.param(_object("v1", "ConfigMap", "argocd"), "namespace argocd", id="argo cd's settings"),
    pytest.param(_object("apps/v1", "Deployment", "modelyard-staging"), "namespace modelyard-staging", id="neighbour"),
    pytest.param(_object("apps/v1", "Deployment", "kube-system"), "namespace kube-system", id="kube-system"),
]


@pytest.mark.parametrize(("intruder", "why"), INTRUDERS)
def test_an_environment_s_project_refuses_the_rest(checkout: Checkout, intruder: Document, why: str) -> None:
    project = projects(checkout)["modelyard-dev"]
    [application] = [one for one in checkout.applications() if one["metadata"]["name"] == "modelyard-dev-drift"]

    found = refusals(project, application, [intruder])

    assert any(why in one for one in found), found


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("source", "repoURL", "https://gitlab.example.com/modelyard/modelyard.git.evil.example.org"),
        ("destination", "server", "https://elsewhere.example.org"),
        ("destination", "namespace", "modelyard-production"),
    ],
)
def test_an_environment_s_project_refuses_other_sources_and_destinations(
    checkout: Checkout, part: str, key: str, value: str
) -> None:
    project = projects(checkout)["modelyard-dev"]
    [application] = [one for one in checkout.applications() if one["metadata"]["name"] == "modelyard-dev-drift"]
    changed = copy.deepcopy(application)
    changed["spec"][part][key] = value

    assert refusals(project, application, []) == []
    assert len(refusals(project, changed, [])) == 1


def test_what_an_environment_may_not_make_stops_at_its_project(scratch: Checkout) -> None:
    """An escape hatch of a chart's values does not lead out of the project."""
    values = scratch.folder / "deploy/argocd/envs/dev/drift.yaml"
    values.write_text(
        "extraObjects: [{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: x}}]\n"
    )
    [application] = [one for one in scratch.applications() if one["metadata"]["name"] == "modelyard-dev-drift"]

    found = refusals(projects(scratch)["modelyard-dev"], application, objects_of(scratch, application))

    assert found == ["rbac.authorization.k8s.io/ClusterRole"]
