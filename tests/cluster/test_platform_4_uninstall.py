"""What a release leaves when it goes: what its user made, and nothing of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.installation import Installation
from tests.cluster.managed_model import MODEL, SEEN_S, columns, is_about_its_spec

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


def test_a_deleted_model_comes_back_with_its_versions_unless_its_policy_says_otherwise(platform: Installation) -> None:
    champion, found = columns(platform)["CHAMPION"], platform.get(f"mm/{MODEL}")

    # Paused: nothing is trained while it comes and goes.
    _delete(platform)
    _apply(platform, found["spec"] | {"paused": True})
    platform.eventually(lambda: columns(platform)["READY"] == "True", timeout_s=SEEN_S)
    retained = columns(platform)["CHAMPION"]
    _apply(platform, found["spec"] | {"paused": True, "deletionPolicy": "delete"})
    _delete(platform)
    _apply(platform, found["spec"] | {"paused": True})
    begun_anew = columns(platform)["CHAMPION"]
    _delete(platform)

    assert len(found["metadata"]["finalizers"]) == 1
    assert (retained, begun_anew) == (champion, "")


def test_uninstall_leaves_nothing_behind(platform: Installation) -> None:
    platform.uninstall()

    def left() -> set[str]:
        found = set(platform.kubectl("get", KINDS, "--output=name").split())
        names = {name.replace(".apps", "").replace(".batch", "") for name in found}
        return {name for name in names - MADE_BY_ITS_USER if "/postgresql" not in name}

    platform.eventually(lambda: left() == set(), timeout_s=90)


def _apply(platform: Installation, spec: dict[str, Any]) -> None:
    document = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": {"name": MODEL}}
    platform.kubectl("apply", "--filename=-", stdin=json.dumps(document | {"spec": spec}))
    platform.eventually(lambda: is_about_its_spec(platform), timeout_s=SEEN_S)


def _delete(platform: Installation) -> None:
    """Delete the model; kubectl returns when the finalizer is gone."""
    platform.kubectl("delete", f"mm/{MODEL}", timeout_s=90)
