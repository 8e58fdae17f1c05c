"""A real API server takes what the charts make, admits their pods at the restricted level, and knows their rights.

Needs a cluster in KUBECONFIG, in which a namespace is made and removed; no pod has to start.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import kube_tools
import pytest

from tests.chart.jobs import trainer_job
from tests.chart.rendering import Document, Helm, PodSpec, merged, name_of, of_kind, pods, profile

pytestmark = pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG names no cluster")
# Cluster-wide, and perhaps somebody else's already.
WITHOUT_CRDS: Document = {"crds": {"enabled": False}}


@dataclass(frozen=True)
class Server:
    """kubectl in a namespace of our own, which admits only restricted pods."""

    kubectl: Path
    namespace: str

    def run(self, *words: str, stdin: object = None) -> str:
        """Return what kubectl prints; raise CalledProcessError."""
        command = [str(self.kubectl), "--namespace", self.namespace, "--request-timeout=20s", *words]
        text = json.dumps(stdin) if stdin is not None else None
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or words[0] == "auth", done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def server(tools: kube_tools.KubeTools) -> Iterator[Server]:
    made = Server(tools.kubectl, f"charts-{secrets.token_hex(4)}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace, "labels": labels}}
    made.run("create", "--filename", "-", stdin=namespace)
    yield made
    made.run("delete", "namespace", made.namespace, "--wait=false")


@pytest.mark.parametrize("major", ["helm3", "helm4"])
@pytest.mark.parametrize("profile_name", ["small", "ha", "ci"])
def test_a_release_is_installed_upgraded_and_leaves_nothing_behind(
    helms: Mapping[str, Helm], server: Server, profile_name: str, major: str
) -> None:
    helm, release = helms[major], f"{profile_name}-{major}"
    values = merged(profile(profile_name), WITHOUT_CRDS)
    kinds = "deployments,statefulsets,services,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,roles"
    mine = ("get", f"{kinds},rolebindings,serviceaccounts,configmaps", f"--selector=modelyard.dev/platform={release}")
    options = ("--no-hooks", "--namespace", server.namespace)

    helm.run("install", release, "modelyard", values, *options)
    installed = server.run(*mine, "--output=name").splitlines()
    changed = merged(values, {"inference": {"settings": {"maxRows": 5}}})
    helm.run("upgrade", release, "modelyard", changed, *options)
    subprocess.run(
        [str(helm.binary), "uninstall", release, *options], check=True, capture_output=True, text=True, timeout=60
    )

    assert len(installed) > 30
    assert server.run(*mine, "--output=name") == ""


@pytest.fixture(scope="module")
def accounts(helm: Helm, server: Server) -> dict[str, str]:
    """Install accounts and roles, and give the account of each component."""
    documents = helm.render("modelyard", merged(profile("ha"), WITHOUT_CRDS))
    for document in of_kind(documents, "ServiceAccount", "Role", "RoleBinding"):
        here = json.loads(json.dumps(document).replace('"ml"', json.dumps(server.namespace)))
        server.run("apply", "--filename", "-", stdin=here)
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["metadata"]["name"]
        for one in of_kind(documents, "ServiceAccount")
    }


def test_every_pod_is_admitted_where_only_restricted_pods_are(
    helm: Helm, server: Server, accounts: dict[str, str]
) -> None:
    documents = helm.render("modelyard", merged(profile("ha"), WITHOUT_CRDS))
    job: Document = {"metadata": {"name": "job"}, "kind": "Job", **trainer_job(documents)}
    found = [*pods(documents), *pods([job])]

    for pod in found:
        server.run("create", "--dry-run=server", "--filename", "-", stdin=_alone(pod, accounts["drift"]))

    assert len(found) == 12
    broken = _alone(found[0], accounts["drift"])
    broken["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        server.run("create", "--dry-run=server", "--filename", "-", stdin=broken)


def _alone(pod: PodSpec, account: str) -> Document:
    """Return a pod as its controller makes it."""
    # A namespace without a controller manager has no default account.
    spec = {"serviceAccountName": account, **json.loads(json.dumps(pod.spec))}
    claims = pod.owner["spec"].get("volumeClaimTemplates", [])
    claimed = [{"name": one["metadata"]["name"], "persistentVolumeClaim": {"claimName": "x"}} for one in claims]
    spec["volumes"] = [*spec.get("volumes", []), *claimed]
    metadata = {"name": "one", "labels": dict(pod.labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


MAY = {
    "training": {
        *("create jobs.batch", "get jobs.batch", "list jobs.batch", "patch jobs.batch"),
        *("list pods", "list events", "get pods/log"),
    },
    "operator": {
        *("get managedmodels.modelyard.dev", "list managedmodels.modelyard.dev", "watch managedmodels.modelyard.dev"),
        *("patch managedmodels.modelyard.dev", "patch managedmodels.modelyard.dev/status"),
        "create leases.coordination.k8s.io",
    },
}
ASKED = {
    *(rule for rules in MAY.values() for rule in rules),
    *("delete jobs.batch", "update jobs.batch", "create pods", "delete pods", "create pods/exec", "get secrets"),
    *("list secrets", "get configmaps", "create rolebindings.rbac.authorization.k8s.io", "patch deployments.apps"),
    *("update managedmodels.modelyard.dev", "delete managedmodels.modelyard.dev", "create managedmodels.modelyard.dev"),
    *("get leases.coordination.k8s.io", "delete leases.coordination.k8s.io"),
}


@pytest.mark.parametrize("component", ["registry", "training", "trainer", "inference", "drift", "operator", "mlflow"])
def test_an_account_may_do_what_its_service_needs_and_nothing_else(
    server: Server, accounts: dict[str, str], component: str
) -> None:
    who = f"--as=system:serviceaccount:{server.namespace}:{accounts[component]}"

    allowed = {rule for rule in ASKED if _may(server, who, rule)}

    assert allowed == MAY.get(component, set())
    assert not _may(server, who, "list pods", "--namespace=kube-system")


def _may(server: Server, who: str, rule: str, *more: str) -> bool:
    verb, _, resource = rule.partition(" ")
    resource, _, sub = resource.partition("/")
    words = ["auth", "can-i", verb, resource, who, *more]
    return server.run(*words, *([f"--subresource={sub}"] if sub else [])) == "yes"


def test_the_operator_may_keep_its_own_lease_and_no_other(server: Server, accounts: dict[str, str]) -> None:
    who = f"--as=system:serviceaccount:{server.namespace}:{accounts['operator']}"

    answers = {
        name: server.run("auth", "can-i", "update", f"leases.coordination.k8s.io/{name}", who)
        for name in (accounts["operator"], "another")
    }

    assert answers == {accounts["operator"]: "yes", "another": "no"}


def test_names_of_objects_are_unique_to_their_release(helm: Helm) -> None:
    one, two = (helm.render("modelyard", merged(profile("ha"), WITHOUT_CRDS), release=name) for name in ("a", "b"))

    assert {name_of(document) for document in one} & {name_of(document) for document in two} == set()
