"""What a release leaves when it goes: what its user made, and nothing of its own."""

from __future__ import annotations

import json

import pytest
from modelyard_client import Modelyard
from modelyard_common.errors import NotFound

from tests.cluster.installation import Installation
from tests.cluster.managed_model import MODEL, SEEN_S

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600, func_only=True)]

KINDS = (
    "pods,services,deployments,statefulsets,replicasets,jobs,ingresses,networkpolicies,configmaps,secrets,"
    "serviceaccounts,roles,rolebindings,leases,persistentvolumeclaims,poddisruptionbudgets,horizontalpodautoscalers,"
    "managedmodels"
)
# What was there before the release: its user's secrets and database, and what every namespace has.
MADE_BY_ITS_USER = {
    *("secret/modelyard-auth", "secret/modelyard-database", "secret/wrong"),
    *("serviceaccount/default", "configmap/kube-root-ca.crt"),
}


def test_a_deleted_model_leaves_the_registry_when_its_policy_says_so_and_stays_when_not(
    platform: Installation, client: Modelyard
) -> None:
    spec = platform.get(f"mm/{MODEL}")["spec"] | {"deletionPolicy": "delete", "paused": True}
    passing = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": {"name": "passing"}}
    platform.kubectl("apply", "--filename=-", stdin=json.dumps(passing | {"spec": spec}))
    platform.eventually(lambda: _known(client, "passing"), timeout_s=SEEN_S)
    finalizers = platform.get(f"mm/{MODEL}")["metadata"]["finalizers"]

    platform.kubectl("delete", "mm/passing", f"mm/{MODEL}", timeout_s=90)

    assert len(finalizers) == 1
    assert not _known(client, "passing")
    assert _known(client, MODEL)


def test_uninstall_leaves_nothing_behind(platform: Installation) -> None:
    platform.uninstall()

    def left() -> set[str]:
        found = set(platform.kubectl("get", KINDS, "--output=name").split())
        names = {name.replace(".apps", "").replace(".batch", "") for name in found}
        return {name for name in names - MADE_BY_ITS_USER if "/postgresql" not in name}

    platform.eventually(lambda: left() == set(), timeout_s=90)


def _known(client: Modelyard, model: str) -> bool:
    try:
        return not client.registry.model(model).deleted
    except NotFound:
        return False
