"""What syncs when and by itself: waves, policies, and the ways in which generators can be told wrong things."""

from __future__ import annotations

import pytest
import yaml

from tests.argocd.argo import ARGOCD, Checkout, Refused, wave
from tests.chart.rendering import Document, of_kind


def named(checkout: Checkout) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in [checkout.root(), *checkout.applications()]}


def test_dev_and_staging_follow_git_and_production_waits_for_a_person(checkout: Checkout) -> None:
    found = {
        name: one["spec"]["syncPolicy"].get("automated") for name, one in named(checkout).items() if name != "modelyard"
    }

    for name, automated in found.items():
        if "-production-" in name:
            assert automated is None, name
        elif name in ("modelyard-crds-main", "modelyard-namespaces-main"):
            # With a definition or a namespace goes everything in it.
            assert automated == {"prune": False, "selfHeal": True}
        else:
            assert automated == {"prune": True, "selfHeal": True}, name


def test_every_application_applies_on_the_server_and_tries_again(checkout: Checkout) -> None:
    for name, application in named(checkout).items():
        policy = application["spec"]["syncPolicy"]

        assert {"ServerSideApply=true", "FailOnSharedResource=true"} <= set(policy["syncOptions"]), name
        assert policy["retry"] == {
            "limit": 10,
            "refresh": True,
            "backoff": {"duration": "10s", "factor": 2, "maxDuration": "5m"},
        }


def test_what_is_needed_comes_in_an_earlier_wave(checkout: Checkout) -> None:
    objects = checkout.objects()
    waves = {one["metadata"]["name"]: wave(one) for one in objects}
    sets = [one for one in objects if one["kind"] == "ApplicationSet"]
    made_by = {
        one["metadata"]["name"]: application_set for application_set in sets for one in checkout.expand(application_set)
    }
    definitions, namespaces = {}, {}
    for application in of_kind(objects, "Application"):
        for document in checkout.render(application):
            owner = {"CustomResourceDefinition": definitions, "Namespace": namespaces}[document["kind"]]
            owner[document["metadata"]["name"]] = application["metadata"]["name"]

    for application in checkout.applications():
        name, spec = application["metadata"]["name"], application["spec"]
        mine = wave(made_by.get(name, application))
        assert waves[spec["project"]] < mine, "its project"
        if name in made_by:
            assert waves[namespaces[spec["destination"]["namespace"]]] < mine, "its namespace"
            assert waves[definitions["managedmodels.modelyard.dev"]] < mine, "the operator and models need it"


def test_the_sets_delete_nothing_that_runs(checkout: Checkout) -> None:
    for application_set in of_kind(checkout.objects(), "ApplicationSet"):
        assert application_set["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] is True
        assert "finalizers" not in application_set["spec"]["template"]["metadata"]
    for namespace in of_kind(checkout.render(named(checkout)["modelyard-namespaces-main"]), "Namespace"):
        assert namespace["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"


def test_every_environment_s_namespace_admits_restricted_pods_only(checkout: Checkout) -> None:
    namespaces = of_kind(checkout.render(named(checkout)["modelyard-namespaces-main"]), "Namespace")

    assert {one["metadata"]["name"] for one in namespaces} == {
        f"modelyard-{e}" for e in ("dev", "staging", "production")
    }
    for one in namespaces:
        assert one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_models_are_deployed_where_an_environment_has_them(scratch: Checkout) -> None:
    model = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": {"name": "m"}, "spec": {}}
    for name in ("dev", "production"):
        folder = scratch.folder / ARGOCD / "envs" / name / "models"
        folder.mkdir()
        (folder / "m.yaml").write_text(yaml.safe_dump(model))

    models = {name: one for name, one in named(scratch).items() if name.endswith("-models")}

    assert set(models) == {"modelyard-dev-models", "modelyard-production-models"}
    assert scratch.render(models["modelyard-dev-models"]) == [model]
    assert models["modelyard-dev-models"]["spec"]["destination"]["namespace"] == "modelyard-dev"
    assert models["modelyard-dev-models"]["spec"]["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
    assert "automated" not in models["modelyard-production-models"]["spec"]["syncPolicy"]


def test_another_environment_on_another_cluster_is_one_entry_and_one_folder(scratch: Checkout) -> None:
    values = scratch.folder / ARGOCD / "root/values.yaml"
    told = yaml.safe_load(values.read_text())
    told["clusters"]["edge"] = "https://edge.example.org"
    told["environments"]["field"] = {"cluster": "edge", "namespace": "field", "automated": True}
    values.write_text(yaml.safe_dump(told))
    envs = scratch.folder / ARGOCD / "envs"
    (envs / "dev").rename(envs / "field")

    found = named(scratch)

    assert found["modelyard-field-drift"]["spec"]["destination"] == {
        "server": "https://edge.example.org",
        "namespace": "field",
    }
    assert found["modelyard-crds-edge"]["spec"]["destination"]["server"] == "https://edge.example.org"
    [namespace] = scratch.render(found["modelyard-namespaces-edge"])
    assert namespace["metadata"]["name"] == "field"
    assert "modelyard-dev-drift" not in found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"environments": {"dev": {"cluster": "moon"}}}, "dev.cluster: .moon. is not one", id="cluster"),
        pytest.param({"environments": {"dev": {"automatic": True}}}, "automatic", id="misspelt"),
        pytest.param({"environments": {"Dev": None}}, "Dev", id="name"),
        pytest.param({"clusters": {"main": "kubernetes"}}, "main", id="address"),
        pytest.param({"repository": {"url": "here"}}, "url", id="repository"),
        pytest.param({"repository": {"revision": ""}}, "revision", id="revision"),
        pytest.param({"environments": {}, "projects": []}, "projects", id="unknown"),
    ],
)
def test_wrong_values_of_the_root_are_refused_by_name(scratch: Checkout, wrong: Document, said: str) -> None:
    root = scratch.root()
    root["spec"]["source"]["helm"]["valuesObject"] = wrong

    with pytest.raises(Refused, match=said):
        scratch.render(root)


def test_a_release_entry_without_its_values_stops_the_set(scratch: Checkout) -> None:
    (scratch.folder / ARGOCD / "envs/dev/release.yaml").write_text("- service: drift\n")

    with pytest.raises(Refused, match="values"):
        scratch.applications()


def test_the_repository_is_the_same_wherever_it_is_named(checkout: Checkout) -> None:
    root = checkout.root()["spec"]["source"]
    told = yaml.safe_load((checkout.folder / ARGOCD / "root/values.yaml").read_text())["repository"]

    assert (root["repoURL"], root["targetRevision"]) == (told["url"], told["revision"])
    assert {one["spec"]["source"]["repoURL"] for one in checkout.applications()} == {told["url"]}
