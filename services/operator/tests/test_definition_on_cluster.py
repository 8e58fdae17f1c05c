"""The CustomResourceDefinition on a real API server: it is taken, and judges every document as our own reading does."""

from __future__ import annotations

import copy
import math
import runpy
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from modelyard_common.cluster import Cluster
from modelyard_common.errors import Conflict, Invalid, NotFound
from modelyard_common.testing.required import kubeconfig
from modelyard_contracts.crd import NAME, definition
from operator_yard import ROOT

pytestmark = pytest.mark.cluster

TESTS = ROOT / "libs/contracts/tests"
TABLES, CRD = (runpy.run_path(str(TESTS / f"{name}.py")) for name in ("test_manifest", "test_crd"))
EXAMPLE = yaml.safe_load((TESTS / "manifests/electricity.yaml").read_text())
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Nothing is stored, and an unknown field is an error as it is with kubectl.
OBJECTS = "/apis/modelyard.dev/v1alpha1/namespaces/default/managedmodels?dryRun=All&fieldValidation=Strict"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.connect(kubeconfig()) as found:
        yield found


@pytest.fixture(scope="module")
def established(cluster: Cluster) -> Cluster:
    try:
        cluster.create(DEFINITIONS, definition())
    except Conflict:
        cluster.patch(f"{DEFINITIONS}/{NAME}", {"spec": definition()["spec"]})
    deadline = time.monotonic() + 30
    while not _established(cluster):
        assert time.monotonic() < deadline, "the definition is not established"
        time.sleep(0.1)
    return cluster


def _established(cluster: Cluster) -> bool:
    # Null in its first moments.
    conditions = cluster.get(f"{DEFINITIONS}/{NAME}").get("status", {}).get("conditions") or []
    try:
        cluster.get(OBJECTS.partition("?")[0], limit=1)
    except NotFound:
        return False
    return any(found["type"] == "Established" and found["status"] == "True" for found in conditions)


def test_the_definition_is_taken_with_all_of_its_rules(established: Cluster) -> None:
    conditions = established.get(f"{DEFINITIONS}/{NAME}")["status"]["conditions"]
    assert not any(found["type"] == "NonStructuralSchema" for found in conditions)


def test_what_is_stored_has_the_defaults_that_our_reading_fills_in(established: Cluster) -> None:
    sent = named(CRD["from_kubectl"](EXAMPLE))
    assert established.create(OBJECTS, sent)["spec"] == CRD["as_stored"](CRD["SCHEMA"], sent)["spec"]


ROWS = [row for row in (*TABLES["RULES"], *TABLES["WRONG"]) if row[0] not in ("kind", "apiVersion")]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}={row[1]!r}"[:60] for row in ROWS])
def test_the_server_judges_as_our_own_reading_does(established: Cluster, row: Any) -> None:
    sent = named(CRD["from_kubectl"](TABLES["changed"](EXAMPLE, row[0], row[1])))
    if isinstance(row[1], float) and math.isnan(row[1]):
        pytest.skip("NaN is no JSON")
    expected = CRD["refusals"](sent)
    try:
        established.create(OBJECTS, sent)
    except Invalid as exc:
        assert expected, exc.message
    else:
        assert not expected


def named(document: Any) -> Any:
    """Return the document under a name that no object has, unless its name is what is wrong with it."""
    document = copy.deepcopy(document)
    if document["metadata"].get("name") == EXAMPLE["metadata"]["name"]:
        document["metadata"]["name"] = "dry-run"
    return document
