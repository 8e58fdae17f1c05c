"""What each account of each rendering may ask of the Kubernetes API: its bindings, added up, are an exact set."""

from __future__ import annotations

from tests.chart.jobs import trainer_job
from tests.chart.rendering import Document, Helm, of_kind, pods, umbrella

TRAINING = {
    *("create jobs.batch", "get jobs.batch", "list jobs.batch", "patch jobs.batch"),
    *("list pods", "list events", "get pods/log"),
}


def operator_rights(name: str) -> set[str]:
    """Return what the operator may: models as they are, their status, and its own lease."""
    return {
        *(f"{verb} managedmodels.modelyard.dev" for verb in ("get", "list", "watch", "patch")),
        "patch managedmodels/status.modelyard.dev",
        "create leases.coordination.k8s.io",
        *(f"{verb} leases.coordination.k8s.io {name}" for verb in ("get", "update")),
    }


def rights(documents: list[Document]) -> dict[str, set[str]]:
    """Return what each account may that is bound to anything."""
    rules = {role["metadata"]["name"]: role["rules"] for role in of_kind(documents, "Role")}
    found: dict[str, set[str]] = {}
    for binding in of_kind(documents, "RoleBinding"):
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "ml")
            mine = found.setdefault(subject["name"], set())
            for rule in rules[binding["roleRef"]["name"]]:
                mine |= _spelled_out(rule)
    return found


def _spelled_out(rule: Document) -> set[str]:
    """Return a rule as ``verb resource.group name``."""
    return {
        f"{verb} {resource}.{group} {name}".replace(". ", " ").rstrip()
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
        for name in rule.get("resourceNames", [""])
    }


def test_training_and_the_operator_have_exactly_their_rights_and_nobody_else_has_any(
    helm: Helm, combination: tuple[str, str]
) -> None:
    documents = umbrella(helm, *combination)
    accounts = {pod.component: pod.spec.get("serviceAccountName") for pod in pods(documents)}
    training, operator = accounts["training"], accounts["operator"]

    assert of_kind(documents, "ClusterRole", "ClusterRoleBinding") == []
    assert rights(documents) == {training: TRAINING, operator: operator_rights(operator)}


def test_hooks_tests_and_jobs_run_as_accounts_without_rights(helm: Helm, combination: tuple[str, str]) -> None:
    documents = umbrella(helm, *combination)
    job: Document = {"metadata": {"name": "job"}, "kind": "Job", **trainer_job(documents)}
    passing = [pod for pod in pods([*documents, job]) if pod.owner["kind"] in {"Job", "Pod"}]

    assert {pod.component for pod in passing} >= {"mlflow-migration", "round-trip", "trainer"}
    for pod in passing:
        assert pod.spec.get("serviceAccountName", "default") not in rights(documents), f"{pod}"
        assert pod.spec["automountServiceAccountToken"] is False


def test_only_what_talks_to_the_api_server_gets_a_token(helm: Helm, combination: tuple[str, str]) -> None:
    documents = umbrella(helm, *combination)

    with_token = {pod.component for pod in pods(documents) if pod.spec["automountServiceAccountToken"]}

    assert with_token == {"training", "operator"}
    assert not any(account["automountServiceAccountToken"] for account in of_kind(documents, "ServiceAccount"))
