"""The health of Applications, which sync waves wait by: about what an Application is told now, or a reason to wait."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import kube_tools
import pytest
import yaml
from lupa import lua51

from tests.argocd.argo import ROOT, Checkout
from tests.argocd.lua import HEALTH, STATUSES, health
from tests.chart.rendering import Document

SCRIPT = HEALTH / "application.lua"


@pytest.fixture(scope="module")
def synced(checkout: Checkout) -> Document:
    """An Application as it is when all went well."""
    [application] = [one for one in checkout.applications() if one["metadata"]["name"] == "modelyard-dev-drift"]
    spec = application["spec"]
    compared = {"source": copy.deepcopy(spec["source"]), "destination": copy.deepcopy(spec["destination"])}
    return application | {
        "status": {
            "sync": {"status": "Synced", "comparedTo": compared},
            "health": {"status": "Healthy"},
            "operationState": {"phase": "Succeeded", "message": "successfully synced"},
        }
    }


def with_(document: Document, path: str, value: Any) -> Document:
    """Return a document with the value at a dotted path replaced, or taken away by None."""
    changed = copy.deepcopy(document)
    *folders, key = path.split(".")
    here = changed
    for folder in folders:
        here = here[folder]
    here[key] = value
    return changed


def test_a_synced_application_has_its_own_health(synced: Document) -> None:
    for status in STATUSES:
        assert health(SCRIPT, with_(synced, "status.health", {"status": status, "message": "x"})) == (status, "x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("status", None, id="just made"),
        pytest.param("status.health", None, id="without health"),
        pytest.param("status.sync", None, id="not compared"),
        pytest.param("status.sync.comparedTo", None, id="compared with nothing"),
        pytest.param("status.sync.status", "OutOfSync", id="about to be synced"),
        pytest.param("status.sync.status", "Unknown", id="cannot be compared now"),
        pytest.param("spec.source.targetRevision", "v2", id="told another revision"),
        pytest.param("spec.source.helm.valuesObject", {"image": {"digest": "sha256:new"}}, id="told another digest"),
        pytest.param("spec.source.helm.valueFiles", [], id="told fewer files"),
        pytest.param("status.sync.comparedTo.source.path", "elsewhere", id="compared with another chart"),
        pytest.param("status.operationState", {"phase": "Running", "message": "waiting for hooks"}, id="being synced"),
        pytest.param("operation", {"sync": {}}, id="sync asked for"),
    ],
)
def test_a_wave_waits_for_an_application_that_is_not_what_it_is_told(synced: Document, path: str, value: Any) -> None:
    status, message = health(SCRIPT, with_(synced, path, value))

    assert status == "Progressing"
    assert message


def test_a_sync_that_failed_for_good_is_degraded_and_says_why(synced: Document) -> None:
    out = with_(synced, "status.sync.status", "OutOfSync")
    failed = with_(out, "status.operationState", {"phase": "Failed", "message": "hook drift-migration failed"})

    assert health(SCRIPT, failed) == ("Degraded", "hook drift-migration failed")
    # An older failure does not count against what runs.
    assert health(SCRIPT, with_(failed, "status.sync.status", "Synced"))[0] == "Healthy"


def test_an_application_that_a_person_syncs_does_not_hold_a_wave_back(synced: Document) -> None:
    by_hand = with_(with_(synced, "spec.syncPolicy.automated", None), "status.sync.status", "OutOfSync")
    switched_off = with_(synced, "spec.syncPolicy.automated", {"enabled": False})

    assert health(SCRIPT, by_hand)[0] == "Healthy"
    assert health(SCRIPT, with_(switched_off, "status.sync.status", "OutOfSync"))[0] == "Healthy"


def test_several_sources_are_compared_too(synced: Document) -> None:
    sources = [{"repoURL": "a", "path": "x"}, {"repoURL": "a", "path": "y"}]
    several = with_(with_(synced, "spec.sources", sources), "status.sync.comparedTo.sources", copy.deepcopy(sources))

    assert health(SCRIPT, several)[0] == "Healthy"
    assert health(SCRIPT, with_(several, "spec.sources", sources[:1]))[0] == "Progressing"
    assert health(SCRIPT, with_(several, "status.sync.comparedTo.sources", sources[:1]))[0] == "Progressing"


def test_the_installation_holds_these_very_scripts(tools: kube_tools.KubeTools) -> None:
    command = [str(tools.kubectl), "kustomize", str(ROOT / "deploy/argocd/install")]
    [settings] = yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    assert (settings["kind"], settings["metadata"]["name"], settings["metadata"]["namespace"]) == (
        "ConfigMap",
        "argocd-cm",
        "argocd",
    )
    # Without it Argo CD does not read the ConfigMap at all.
    assert settings["metadata"]["labels"]["app.kubernetes.io/part-of"] == "argocd"
    assert settings["data"] == {
        "application.resourceTrackingMethod": "annotation",
        "resource.customizations.health.argoproj.io_Application": SCRIPT.read_text(),
        "resource.customizations.health.modelyard.dev_ManagedModel": (HEALTH / "managedmodel.lua").read_text(),
    }


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('return {status = string.lower("HEALTHY"), message = ""}', "global 'string'"),
        ('return {status = ("x"):upper(), message = ""}', "index a string"),
        ('return {status = "Fine", message = ""}', "Fine"),
        ('return "Healthy"', "table"),
    ],
)
def test_what_argo_cd_would_not_run_is_not_run_here(tmp_path: Path, script: str, why: str) -> None:
    path = tmp_path / "x.lua"
    path.write_text(script)

    with pytest.raises((lua51.LuaError, AssertionError), match=why):
        health(path, {})
