"""Every chart with every profile and feature, on both majors of Helm, against Kubernetes' own schemas."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import (
    FEATURES,
    GOLDENS,
    SERVICES,
    Document,
    Helm,
    golden,
    merged,
    name_of,
    of_kind,
    profile,
    section,
    umbrella,
)
from tools.observability.alerts import RUNBOOK_BASE, RUNBOOKS

ROOT = Path(__file__).parents[2]
PROFILES = ("small", "ha", "ci")
MATRIX = [pytest.param(p, f, id=f"{p}-{f}") for p in PROFILES for f in FEATURES]
# Kinds that are not Kubernetes' own; the tests below look at each of them.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject"}


@pytest.mark.parametrize(("profile_name", "feature"), MATRIX)
def test_helm_3_and_helm_4_render_the_same(helms: Mapping[str, Helm], profile_name: str, feature: str) -> None:
    three, four = (umbrella(helm, profile_name, feature) for helm in helms.values())

    assert sorted(three, key=name_of) == sorted(four, key=name_of)


@pytest.mark.parametrize(("profile_name", "feature"), MATRIX)
def test_every_object_is_what_kubernetes_calls_one(helm: Helm, profile_name: str, feature: str) -> None:
    documents = umbrella(helm, profile_name, feature)

    for document in documents:
        if document["kind"] not in FOREIGN:
            _validate(json.dumps(document))
    names = [name_of(document) for document in documents]
    assert sorted(set(names)) == sorted(names), "two objects of one name"
    assert all(document["metadata"].get("namespace", "ml") == "ml" for document in documents)


def test_the_schemas_of_kubernetes_are_looked_at_strictly(helm: Helm) -> None:
    [service] = [one for one in of_kind(umbrella(helm, "small", "plain"), "Service") if "drift" in name_of(one)]
    misspelt = merged(service, {"spec": {"clusterIp": "None"}})

    with pytest.raises(kubernetes_validate.ValidationError, match="clusterIp"):
        kubernetes_validate.validate(misspelt, "1.35", strict=True)


@functools.cache
def _validate(document: str) -> None:
    """Look at an object once, in however many combinations it is the same."""
    kubernetes_validate.validate(json.loads(document), "1.35", strict=True)


@pytest.mark.parametrize("profile_name", PROFILES)
@pytest.mark.parametrize("chart", [*SERVICES, "observability", "crds"])
def test_a_chart_alone_makes_the_objects_that_the_umbrella_makes(helm: Helm, chart: str, profile_name: str) -> None:
    values = merged(profile(profile_name), {"observability": {"enabled": True}})
    together = {name_of(document): document for document in helm.render("modelyard", values)}

    alone = helm.render(chart, section(values, chart), release=f"modelyard-{chart}")

    assert alone
    for document in alone:
        assert _without_release(document) == _without_release(together[name_of(document)])


def _without_release(document: Document) -> str:
    """Return an object as text, with the release's name taken out where it is a label."""
    text = golden([document]) or str(document)
    return "\n".join(line for line in text.splitlines() if "app.kubernetes.io/instance:" not in line)


@pytest.mark.parametrize("profile_name", PROFILES)
def test_a_profile_renders_what_was_reviewed(helm: Helm, profile_name: str) -> None:
    rendered = golden(umbrella(helm, profile_name, "plain"))

    reviewed = (GOLDENS / f"{profile_name}.yaml").read_text()

    assert rendered == reviewed, "look at the difference, then `python -m tests.chart.goldens`"


@pytest.mark.parametrize("chart", [*SERVICES, "crds", "observability", "modelyard"])
@pytest.mark.parametrize("major", ["helm3", "helm4"])
def test_lint_finds_nothing(helms: Mapping[str, Helm], major: str, chart: str) -> None:
    values = {"persistence": {"enabled": True}} if chart == "mlflow" else {}

    said = helms[major].run("lint", "", chart, profile("small") if chart == "modelyard" else values, "--strict")

    assert "1 chart(s) linted, 0 chart(s) failed" in said


def test_the_umbrella_leaves_out_what_is_switched_off(helm: Helm) -> None:
    off = {name: {"enabled": False} for name in (*SERVICES, "crds", "observability") if name != "registry"}

    documents = helm.render("modelyard", off)

    assert {document["metadata"]["labels"]["app.kubernetes.io/name"] for document in documents} == {"registry"}


def test_release_and_platform_names_of_any_length_make_names_that_kubernetes_takes(helm: Helm) -> None:
    documents = helm.render("modelyard", profile("ha"), release="a" * 53)

    # A StatefulSet's pods carry its name and a hash of ten characters in a label of at most 63.
    assert max(len(document["metadata"]["name"]) for document in documents if "CRD" not in document["kind"]) <= 63
    assert max(len(document["metadata"]["name"]) for document in of_kind(documents, "StatefulSet")) <= 52
    assert {len(service["metadata"]["name"]) for service in of_kind(documents, "Service")} <= set(range(1, 53))


@pytest.mark.parametrize("chart", SERVICES)
def test_extra_objects_are_templates_of_their_chart(helm: Helm, chart: str) -> None:
    documents = umbrella(helm, "small", "hatches")

    [made] = [one for one in of_kind(documents, "ConfigMap") if one["metadata"]["name"] == f"modelyard-{chart}-more"]
    assert made["data"] == {"release": "modelyard"}


def test_routes_write_out_their_defaults_so_that_gitops_tools_see_no_difference(helm: Helm) -> None:
    routes = of_kind(umbrella(helm, "small", "routed"), "HTTPRoute")

    assert len(routes) == 5
    for route in routes:
        [parent] = route["spec"]["parentRefs"]
        assert parent == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "gw"}
        [rule] = route["spec"]["rules"]
        [backend] = rule["backendRefs"]
        assert backend["group"] == "" and backend["kind"] == "Service" and backend["weight"] == 1


def test_keda_takes_the_place_of_the_autoscaler(helm: Helm) -> None:
    documents = umbrella(helm, "small", "keda")

    assert of_kind(documents, "HorizontalPodAutoscaler") == []
    [scaled] = of_kind(documents, "ScaledObject")
    target = scaled["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in {name_of(document) for document in documents}
    by_cpu, by_day = scaled["spec"]["triggers"]
    assert by_cpu["type"] == "cpu"
    assert by_day["type"] == "cron"
    assert by_day["metadata"].keys() == {"timezone", "start", "end", "desiredReplicas"}


def test_service_monitors_find_each_service_by_a_port_that_it_has(helm: Helm) -> None:
    documents = umbrella(helm, "small", "ours")
    services = of_kind(documents, "Service")
    monitors = of_kind(documents, "ServiceMonitor")

    assert len(monitors) == 5
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [one for one in services if wanted <= one["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert monitor["spec"]["sampleLimit"] > 0
        assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_each_file_of_rules_and_dashboards_becomes_an_object_as_it_is(helm: Helm, tmp_path: Path) -> None:
    chart = Path(shutil.copytree(helm.charts / "observability", tmp_path / "observability"))
    for kind in ("rules", "dashboards"):
        (chart / "files" / kind).mkdir(parents=True, exist_ok=True)
    alert = {"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.x }}"}}
    rules = {"groups": [{"name": "g", "rules": [alert]}]}
    (chart / "files/rules/probe-rules.yaml").write_text(yaml.safe_dump(rules))
    dashboard = '{"title": "x", "legendFormat": "{{pod}}"}\n'
    (chart / "files/dashboards/probe-board.json").write_text(dashboard)

    documents = Helm(helm.binary, tmp_path, tmp_path).render("observability")

    [rule] = [one for one in of_kind(documents, "PrometheusRule") if one["metadata"]["name"] == "modelyard-probe-rules"]
    assert rule["spec"] == rules
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    [board] = [one for one in of_kind(documents, "ConfigMap") if "probe-board.json" in one["data"]]
    assert board["data"]["probe-board.json"] == dashboard
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["annotations"]["grafana_folder"] == "Modelyard"


def test_the_chart_ships_the_platforms_own_rules_and_dashboards(helm: Helm) -> None:
    files = helm.charts / "observability/files"

    documents = helm.render("observability")

    rules = {one["metadata"]["name"]: one["spec"] for one in of_kind(documents, "PrometheusRule")}
    assert rules == {f"modelyard-{file.stem}": yaml.safe_load(file.read_text()) for file in files.glob("rules/*.yaml")}
    boards = {name: text for one in of_kind(documents, "ConfigMap") for name, text in one["data"].items()}
    assert boards == {file.name: file.read_text() for file in files.glob("dashboards/*.json")}
    assert rules
    assert boards


@pytest.mark.parametrize("base", ["https://git.example.com/ml/modelyard/-/blob/main/docs/runbooks", ""])
def test_every_alert_leads_to_its_page_where_the_installation_keeps_them(helm: Helm, base: str) -> None:
    documents = helm.render("observability", {"rules": {"runbookBaseUrl": base}})

    rules = [
        rule
        for one in of_kind(documents, "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules}
    assert len(links) > 20
    assert links == {name: f"{base or RUNBOOK_BASE}/{name}.md" for name in links}
    assert [name for name in links if not (ROOT / RUNBOOKS / f"{name}.md").is_file()] == []


def test_two_releases_in_one_namespace_share_no_name(helm: Helm) -> None:
    one, two = (helm.render("modelyard", profile("ha"), release=name) for name in ("a", "b"))

    shared = {name_of(document) for document in one} & {name_of(document) for document in two}
    assert shared == {"CustomResourceDefinition/managedmodels.modelyard.dev"}
