"""A real API server takes what the charts make, admits their pods at the restricted level, and knows their rights.

No pod of a chart has to start here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from tests.chart.conftest import helm, helms  # noqa: F401  # fixtures
from tests.chart.jobs import trainer_job
from tests.chart.rendering import SERVICES, Document, Helm, PodSpec, merged, of_kind, pods, profile
from tools.cluster.access import Cluster, CommandError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]
# Cluster-wide, and perhaps somebody else's already.
WITHOUT_CRDS: Document = {"crds": {"enabled": False}}


@pytest.fixture(scope="module")
def place_of_charts(cluster: Cluster) -> Iterator[str]:
    """A namespace that admits only restricted pods."""
    with cluster.namespace("charts") as name:
        yield name


@pytest.mark.parametrize("major", ["helm3", "helm4"])
@pytest.mark.parametrize("profile_name", ["small", "ha", "ci"])
def test_a_release_is_installed_upgraded_and_leaves_nothing_behind(
    helms: Mapping[str, Helm],  # noqa: F811
    cluster: Cluster,
    place_of_charts: str,
    profile_name: str,
    major: str,
) -> None:
    release, here = f"{profile_name}-{major}", f"--namespace={place_of_charts}"
    values = helms[major].scratch / f"{release}.json"
    values.write_text(json.dumps(merged(profile(profile_name), WITHOUT_CRDS)))
    chart = (release, str(helms[major].charts / "modelyard"), here, f"--values={values}", "--no-hooks")
    number = 3 if major == "helm3" else 4
    kinds = "deployments,statefulsets,services,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,roles"
    mine = ("get", f"{kinds},rolebindings,serviceaccounts,configmaps", f"-l=modelyard.dev/platform={release}")

    cluster.helm("install", *chart, major=number)
    installed = cluster.kubectl(*mine, here, "--output=name").splitlines()
    cluster.helm("upgrade", *chart, "--set=inference.settings.maxRows=5", major=number)
    cluster.helm("uninstall", release, here, "--no-hooks", major=number)

    assert len(installed) > 30
    assert cluster.kubectl(*mine, here, "--output=name") == ""


@pytest.fixture(scope="module")
def accounts(helm: Helm, cluster: Cluster, place_of_charts: str) -> dict[str, str]:  # noqa: F811
    """Install accounts and roles, and give the account of each component."""
    documents = helm.render("modelyard", merged(profile("ha"), WITHOUT_CRDS))
    found = of_kind(documents, "ServiceAccount", "Role", "RoleBinding")
    here = json.loads(json.dumps(found).replace('"ml"', json.dumps(place_of_charts)))
    cluster.apply(*here, namespace=place_of_charts)
    made = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["metadata"]["name"]
        for one in of_kind(documents, "ServiceAccount")
    }
    return made | {"default": "default"}


@pytest.mark.usefixtures("accounts")
def test_every_pod_is_admitted_where_only_restricted_pods_are(
    helm: Helm,  # noqa: F811
    cluster: Cluster,
    place_of_charts: str,
) -> None:
    documents = helm.render("modelyard", merged(profile("ha"), WITHOUT_CRDS))
    job: Document = {"metadata": {"name": "job"}, "kind": "Job", **trainer_job(documents)}
    found = [*pods(documents), *pods([job])]
    create = ("create", "--dry-run=server", "--filename=-", f"--namespace={place_of_charts}")

    for pod in found:
        cluster.kubectl(*create, stdin=json.dumps(_alone(pod)))

    assert len(found) == 12
    broken = _alone(found[0])
    broken["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(CommandError, match="violates PodSecurity"):
        cluster.kubectl(*create, stdin=json.dumps(broken))


def _alone(pod: PodSpec) -> Document:
    """Return a pod as its controller makes it."""
    spec: Document = json.loads(json.dumps(pod.spec))
    claims = pod.owner["spec"].get("volumeClaimTemplates", [])
    claimed = [{"name": one["metadata"]["name"], "persistentVolumeClaim": {"claimName": "x"}} for one in claims]
    spec["volumes"] = [*spec.get("volumes", []), *claimed]
    metadata = {"name": "one", "labels": dict(pod.labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


MIGRATED = ("registry", "training", "drift", "mlflow")
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


# The account of `helm test` is the namespace's own.
@pytest.mark.parametrize("component", [*SERVICES, *(f"{name}-migration" for name in MIGRATED), "trainer", "default"])
def test_an_account_may_do_what_its_service_needs_and_nothing_else(
    cluster: Cluster, place_of_charts: str, accounts: dict[str, str], component: str
) -> None:
    account = f"{place_of_charts}:{accounts[component]}"

    assert _allowed(cluster, account, ASKED, place_of_charts) == MAY.get(component, set())
    assert _allowed(cluster, account, ASKED, "kube-system") == set()


def test_the_operator_may_keep_its_own_lease_and_no_other(
    cluster: Cluster, place_of_charts: str, accounts: dict[str, str]
) -> None:
    account, update = f"{place_of_charts}:{accounts['operator']}", {"update leases.coordination.k8s.io"}

    assert _allowed(cluster, account, update, place_of_charts, name=accounts["operator"]) == update
    assert _allowed(cluster, account, update, place_of_charts, name="another") == set()


def _allowed(cluster: Cluster, account: str, rules: set[str], namespace: str, name: str = "") -> set[str]:
    """Ask the server about all rules at once; return those that it allows."""
    asked = sorted(rules)
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{account}",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {"namespace": namespace, "name": name, **_attributes(rule)},
            },
        }
        for rule in asked
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    each_on_a_line = '--output=jsonpath={.status.allowed}{"\\n"}'
    answers = cluster.kubectl("create", "--filename=-", each_on_a_line, stdin=listed).split()
    assert set(answers) <= {"true", "false"}
    return {rule for rule, answer in zip(asked, answers, strict=True) if answer == "true"}


def _attributes(rule: str) -> dict[str, str]:
    """Return what a rule like ``patch managedmodels.modelyard.dev/status`` is about."""
    verb, _, target = rule.partition(" ")
    kind, _, subresource = target.partition("/")
    resource, _, group = kind.partition(".")
    return {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
