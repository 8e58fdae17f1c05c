"""Network policies, evaluated as a cluster does: every edge of the service graph is open, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.chart.jobs import trainer_pod
from tests.chart.rendering import FEATURES, NAMESPACE, Document, Helm, merged, of_kind, pods, profile

PORTS = {"inference": 8080, "registry": 8081, "training": 8082, "drift": 8083, "operator": 8084, "mlflow": 8085}
# Who talks to whom: the design, written down once more, on purpose, beside the charts' own list.
GRAPH = {
    ("inference", "registry"),  # routing and bundles
    ("inference", "drift"),  # what was answered
    ("registry", "mlflow"),  # artifacts and records
    ("registry", "drift"),  # the evidence for a rollout
    ("training", "registry"),  # which specs there are
    ("training", "drift"),  # labelled rows
    ("trainer", "training"),  # reports, data
    ("trainer", "registry"),  # the bundle
    ("trainer", "drift"),  # labelled rows
    ("trainer", "mlflow"),  # the run
    ("drift", "registry"),  # policies and baselines
    ("drift", "training"),  # the retrain command
    ("operator", "registry"),
    ("operator", "training"),
    ("operator", "drift"),
    ("operator", "inference"),
    ("round-trip", "inference"),  # helm test
}
MIGRATIONS = {f"{name}-migration" for name in ("registry", "training", "drift", "mlflow")}
OUTSIDE = {
    "database": (5432, {"registry", "training", "drift", "mlflow"} | MIGRATIONS),
    "kubernetes": (6443, {"training", "operator"}),
    "objects": (443, {"mlflow", "training", "operator"}),  # 443 is also where API servers listen
    "anywhere": (80, set[str]()),
}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
DNS = {"kubernetes.io/metadata.name": "kube-system"}


class Firewall:
    """All policies of one rendering."""

    def __init__(self, documents: list[Document]) -> None:
        self._policies = [policy["spec"] for policy in of_kind(documents, "NetworkPolicy")]
        self.pods = {pod.component: dict(pod.labels) for pod in pods(documents)}
        self.pods["trainer"] = trainer_pod(documents)["metadata"]["labels"]

    def of(self, component: str) -> list[Document]:
        """Return the policies that select a component's pods."""
        labels = self.pods[component]
        return [one for one in self._policies if _selects(one["podSelector"], labels)]

    def lets_out(self, component: str, port: int, peer: Mapping[str, Any], protocol: str = "TCP") -> bool:
        """Return whether a component's pods may send there."""
        rules = [rule for policy in self.of(component) for rule in policy["egress"]]
        return any(_open(rule, "to", port, peer, protocol) for rule in rules)

    def lets_in(self, component: str, port: int, peer: Mapping[str, Any]) -> bool:
        """Return whether a component's pods may be called from there."""
        rules = [rule for policy in self.of(component) for rule in policy["ingress"]]
        return any(_open(rule, "from", port, peer, "TCP") for rule in rules)


def _open(rule: Document, side: str, port: int, peer: Mapping[str, Any], protocol: str) -> bool:
    ports = {(entry["port"], entry["protocol"]) for entry in rule.get("ports", [])}
    if ports and (port, protocol) not in ports:
        return False
    return side not in rule or any(_matches(entry, peer) for entry in rule[side])


def _matches(entry: Document, peer: Mapping[str, Any]) -> bool:
    """Return whether a NetworkPolicyPeer is about a pod (labels, of a namespace with labels) or an address outside."""
    if "ipBlock" in entry:
        return bool(peer.get("outside"))
    if peer.get("outside"):
        return False
    if "namespaceSelector" in entry:
        if not _selects(entry["namespaceSelector"], peer["namespace"]):
            return False
    elif peer["namespace"] != {"kubernetes.io/metadata.name": NAMESPACE}:
        return False
    return "podSelector" not in entry or _selects(entry["podSelector"], peer["labels"])


def _selects(selector: Document, labels: Mapping[str, str]) -> bool:
    assert "matchExpressions" not in selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def _pod(labels: Mapping[str, str], namespace: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"labels": labels, "namespace": namespace or {"kubernetes.io/metadata.name": NAMESPACE}}


@pytest.fixture(params=["small", "ha", "ci"])
def firewall(request: pytest.FixtureRequest, helm: Helm) -> Firewall:
    return Firewall(helm.render("modelyard", profile(request.param)))


def test_every_pod_is_closed_both_ways_before_anything_is_opened(firewall: Firewall) -> None:
    assert firewall.pods.keys() == PORTS.keys() | {"trainer", "round-trip"} | MIGRATIONS
    for component in firewall.pods:
        policies = firewall.of(component)
        assert len(policies) == 1, component
        assert policies[0]["policyTypes"] == ["Ingress", "Egress"]


def test_exactly_the_edges_of_the_service_graph_are_open(firewall: Firewall) -> None:
    found = {
        (caller, called)
        for caller, labels in firewall.pods.items()
        for called, port in PORTS.items()
        if firewall.lets_out(caller, port, _pod(firewall.pods[called])) and firewall.lets_in(called, port, _pod(labels))
    }

    assert found == GRAPH


def test_no_side_of_an_edge_is_open_without_the_other(firewall: Firewall) -> None:
    everything = [(caller, called) for caller in firewall.pods for called in firewall.pods]
    ports = set(PORTS.values())

    out = {(a, b, port) for a, b in everything for port in ports if firewall.lets_out(a, port, _pod(firewall.pods[b]))}
    into = {(a, b, port) for a, b in everything for port in ports if firewall.lets_in(b, port, _pod(firewall.pods[a]))}

    assert out == into == {(a, b, PORTS[b]) for a, b in GRAPH}


@pytest.mark.parametrize("destination", OUTSIDE)
def test_only_what_needs_the_outside_reaches_it(firewall: Firewall, destination: str) -> None:
    port, expected = OUTSIDE[destination]

    assert {one for one in firewall.pods if firewall.lets_out(one, port, {"outside": True})} == expected


def test_everybody_may_ask_for_names_and_only_cluster_dns(firewall: Firewall) -> None:
    for component in firewall.pods:
        for protocol in ("UDP", "TCP"):
            assert firewall.lets_out(component, 53, _pod({}, DNS), protocol)
            assert not firewall.lets_out(component, 53, {"outside": True}, protocol)


def test_prometheus_reaches_the_services_and_nobody_else_comes_in(firewall: Firewall) -> None:
    strangers = [_pod({"app": "x"}), _pod({}, {"kubernetes.io/metadata.name": "default"}), {"outside": True}]
    # A stranger with the right labels in another namespace is still a stranger.
    strangers.append(_pod(firewall.pods["inference"], {"kubernetes.io/metadata.name": "default"}))

    scraped = {one for one, port in PORTS.items() if firewall.lets_in(one, port, _pod({}, MONITORING))}
    entered = {one for one, port in PORTS.items() for who in strangers if firewall.lets_in(one, port, who)}

    assert scraped == {"inference", "registry", "training", "drift", "operator"}
    assert entered == set()


def test_two_platforms_in_one_namespace_do_not_meet(helm: Helm) -> None:
    first = Firewall(helm.render("modelyard", profile("small")))
    second = Firewall(helm.render("modelyard", profile("small"), release="other"))

    met = [
        (caller, called)
        for caller, called in GRAPH
        if second.lets_in(called, PORTS[called], _pod(first.pods[caller]))
        or first.lets_out(caller, PORTS[called], _pod(second.pods[called]))
    ]

    assert met == []


def test_clients_and_narrower_destinations_are_what_was_asked_for(helm: Helm) -> None:
    ingress = {"kubernetes.io/metadata.name": "ingress"}
    values: Document = {
        "global": {
            "networkPolicy": {
                "database": {"to": [{"podSelector": {"matchLabels": {"app": "postgresql"}}}]},
                "prometheus": [],
            }
        },
        "inference": {
            "networkPolicy": {
                "clients": [{"namespaceSelector": {"matchLabels": ingress}}],
                "extraEgress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
            }
        },
    }

    firewall = Firewall(helm.render("modelyard", merged(profile("small"), values)))

    assert firewall.lets_in("inference", 8080, _pod({}, ingress))
    assert firewall.lets_in("inference", 8090, _pod({}, ingress))
    assert not firewall.lets_in("inference", 8090, _pod({}, MONITORING))
    assert not firewall.lets_in("registry", 8081, _pod({}, ingress))
    assert not any(firewall.lets_in(one, port, _pod({}, MONITORING)) for one, port in PORTS.items())
    assert firewall.lets_out("drift", 5432, _pod({"app": "postgresql"}))
    assert not firewall.lets_out("drift", 5432, {"outside": True})
    assert _reaching(firewall, 4317) == {"inference"}


def _reaching(firewall: Firewall, port: int) -> set[str]:
    components: Iterable[str] = firewall.pods
    return {one for one in components if firewall.lets_out(one, port, {"outside": True})}


def test_the_receiver_of_traces_is_reached_by_who_makes_them_and_only_where_there_is_one(helm: Helm) -> None:
    collector = _pod({}, MONITORING)
    narrowed = {"networkPolicy": {"tracing": {"to": [{"namespaceSelector": {"matchLabels": MONITORING}}]}}}
    plain, traced = (
        Firewall(helm.render("modelyard", merged(profile("small"), FEATURES[feature], {"global": narrowed})))
        for feature in ("plain", "traced")
    )

    assert not any(plain.lets_out(one, 4318, collector) for one in plain.pods)
    reaching = {one for one in traced.pods if traced.lets_out(one, 4318, collector)}
    assert reaching == (PORTS.keys() | {"trainer"}) - {"mlflow"}
    assert _reaching(traced, 4318) == set()


def test_policies_that_are_off_are_all_off(helm: Helm) -> None:
    values = merged(profile("small"), {"global": {"networkPolicy": {"enabled": False}}})

    assert of_kind(helm.render("modelyard", values), "NetworkPolicy") == []
