"""Every Application renders as Argo CD renders it, in every environment, and what it makes holds together."""

from __future__ import annotations

import functools
import json
import re

import kubernetes_validate
import pytest
import yaml

from tests.argocd.argo import ARGOCD, CLUSTER_SCOPED, Checkout, Refused, is_helm_test
from tests.chart.rendering import SERVICES, Document, environment, name_of, of_kind, pods

ENVIRONMENTS = ("dev", "staging", "production")
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"registry\.example\.com/[a-z0-9/-]+@sha256:[0-9a-f]{64}")
# An image reference in whatever place: of a container, or of the jobs that training makes.
IMAGE = re.compile(r"(?:[a-z0-9.-]+/)?(?:modelyard|mlflow)/[a-z0-9-]+[:@][\w.:-]+")


def of_environment(checkout: Checkout, name: str) -> list[Document]:
    """Return the Applications of an environment."""
    labels = [(one, one["metadata"].get("labels", {})) for one in checkout.applications()]
    return [one for one, told in labels if told.get("modelyard.dev/environment") == name]


def service_of(application: Document) -> str:
    service: str = application["metadata"]["labels"]["modelyard.dev/service"]
    return service


def rendered(checkout: Checkout, environment_name: str) -> list[Document]:
    """Return all objects of an environment."""
    return [one for application in of_environment(checkout, environment_name) for one in checkout.render(application)]


def test_every_service_is_in_every_environment(checkout: Checkout) -> None:
    folders = {path.name for path in (checkout.folder / ARGOCD / "envs").iterdir()}

    found = {name: {service_of(one) for one in of_environment(checkout, name)} for name in folders}

    assert folders == set(ENVIRONMENTS)
    assert found == {
        "dev": set(SERVICES),
        "staging": {*SERVICES, "observability"},
        "production": {*SERVICES, "observability"},
    }


def test_every_chart_that_is_named_is_there_under_that_name(checkout: Checkout) -> None:
    for application in checkout.applications():
        source = application["spec"]["source"]
        chart = yaml.safe_load((checkout.folder / source["path"] / "Chart.yaml").read_text())

        assert source["helm"]["releaseName"] == f"modelyard-{chart['name']}"


def test_an_application_is_its_service_in_its_environment(checkout: Checkout) -> None:
    for name in ENVIRONMENTS:
        for application in of_environment(checkout, name):
            service, spec = service_of(application), application["spec"]

            assert application["metadata"]["name"] == f"modelyard-{name}-{service}"
            assert spec["project"] == f"modelyard-{name}"
            assert spec["destination"] == {
                "server": "https://kubernetes.default.svc",
                "namespace": f"modelyard-{name}",
            }
            assert spec["source"]["path"] == f"deploy/helm/{service}"
            assert spec["source"]["helm"]["valueFiles"] == [
                f"/deploy/argocd/envs/{name}/common.yaml",
                f"/deploy/argocd/envs/{name}/{service}.yaml",
            ]


def test_every_object_is_what_kubernetes_calls_one_and_is_where_it_belongs(checkout: Checkout) -> None:
    for application in checkout.applications():
        documents = checkout.render(application)

        assert documents, application["metadata"]["name"]
        for document in documents:
            if document["kind"] not in FOREIGN:
                _validate(json.dumps(document))
            if document["kind"] not in CLUSTER_SCOPED:
                assert document["metadata"]["namespace"] == application["spec"]["destination"]["namespace"]


@functools.cache
def _validate(document: str) -> None:
    kubernetes_validate.validate(json.loads(document), "1.35", strict=True)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_object_belongs_to_two_applications(checkout: Checkout, name: str) -> None:
    names = [name_of(document) for document in rendered(checkout, name)]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_peers_find_each_other_by_name(checkout: Checkout, name: str) -> None:
    documents = rendered(checkout, name)
    services = {
        f"http://{one['metadata']['name']}:{port['port']}"
        for one in of_kind(documents, "Service")
        for port in one["spec"]["ports"]
    }

    asked = {
        value
        for pod in pods(documents)
        for container in pod.containers
        for variable, value in environment(container).items()
        if re.fullmatch(r"MODELYARD_\w+_(REGISTRY|TRAINING|DRIFT|INFERENCE|MLFLOW)_URL", variable)
    }

    assert len(asked) == 5
    assert asked <= services


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_image_is_pinned_by_the_release_and_by_nothing_else(checkout: Checkout, name: str) -> None:
    documents = rendered(checkout, name)
    text = (checkout.folder / ARGOCD / "envs" / name / "release.yaml").read_text()
    others = [path for path in (checkout.folder / ARGOCD / "envs" / name).glob("*.yaml") if path.stem != "release"]

    images = {image for document in documents for image in IMAGE.findall(json.dumps(document))}

    # One for each service, the trainer's, and the runtime's beside inference.
    assert len(images) == len(SERVICES) + 2
    assert [image for image in images if not PINNED.fullmatch(image)] == []
    assert {image.partition("@")[2] for image in images} == set(DIGEST.findall(text))
    assert [path.name for path in others if "digest" in path.read_text()] == []


def test_the_release_has_the_last_word_on_digests(scratch: Checkout) -> None:
    ours, theirs = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    folder = scratch.folder / ARGOCD / "envs/dev"
    release = (folder / "release.yaml").read_text()
    (folder / "release.yaml").write_text(DIGEST.sub(ours, release))
    (folder / "drift.yaml").write_text(f"image: {{digest: '{theirs}'}}\n")
    [drift] = [one for one in of_environment(scratch, "dev") if service_of(one) == "drift"]

    images = {one["image"] for pod in pods(scratch.render(drift)) for one in pod.containers}

    assert images == {f"registry.example.com/modelyard/drift@{ours}"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_s_values_are_what_its_pods_get(checkout: Checkout, name: str) -> None:
    documents = rendered(checkout, name)
    [autoscaler] = of_kind(documents, "HorizontalPodAutoscaler") or [None]
    [mlflow] = [pod for pod in pods(documents) if pod.component == "mlflow"]

    told = environment(mlflow.spec["containers"][0])["MLFLOW_ARTIFACTS_DESTINATION"]

    assert (autoscaler and autoscaler["spec"]["minReplicas"], told) == {
        "dev": (None, "/data/artifacts"),
        "staging": (2, "s3://modelyard-staging/artifacts"),
        "production": (3, "s3://modelyard-production/artifacts"),
    }[name]


def test_a_misspelt_value_stops_the_sync_and_is_named(scratch: Checkout) -> None:
    values = scratch.folder / ARGOCD / "envs/dev/registry.yaml"
    values.write_text("replica: 3\n")
    [registry] = [one for one in of_environment(scratch, "dev") if service_of(one) == "registry"]

    with pytest.raises(Refused, match="replica"):
        scratch.render(registry)


def test_hooks_of_helm_and_of_argo_cd_are_never_in_one_chart(checkout: Checkout) -> None:
    """Argo CD ignores all of Helm's hooks, migrations too, once a chart has one of its own."""
    hooks = {}
    for application in checkout.applications():
        annotations = [
            set(one["metadata"].get("annotations", {})) for one in checkout.render(application) if not is_helm_test(one)
        ]
        hooks[application["metadata"]["name"]] = (
            any("helm.sh/hook" in one for one in annotations),
            any("argocd.argoproj.io/hook" in one for one in annotations),
        )

    assert (True, True) not in hooks.values()
    for name in ENVIRONMENTS:
        assert all(
            hooks[f"modelyard-{name}-{one}"] == (True, False) for one in ("mlflow", "registry", "training", "drift")
        )
        assert hooks[f"modelyard-{name}-inference"] == (False, True)


def test_an_autoscaler_s_replicas_are_not_argo_cd_s(checkout: Checkout) -> None:
    for name in ("staging", "production"):
        for application in of_environment(checkout, name):
            documents = checkout.render(application)
            by_name = {name_of(one): one for one in documents}
            for autoscaler in of_kind(documents, "HorizontalPodAutoscaler"):
                target = autoscaler["spec"]["scaleTargetRef"]
                ignored = application["spec"]["ignoreDifferences"]

                assert "replicas" not in by_name[f"{target['kind']}/{target['name']}"]["spec"]
                [rule] = [one for one in ignored if one["kind"] == target["kind"]]
                # By who wrote it, so that what a person scales by hand is still undone.
                assert rule == {
                    "group": "apps",
                    "kind": target["kind"],
                    "managedFieldsManagers": ["kube-controller-manager"],
                }
                assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
