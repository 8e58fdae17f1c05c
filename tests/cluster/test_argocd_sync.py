"""Argo CD's own controllers sync `deploy/argocd` from a git repository into the cluster.

No image is needed: what is shown is the order of waves, who may make what, what follows git and what waits for a
person, and that the health checks say in Argo CD what they say in the tests that run without it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from modelyard_common.testing.required import unavailable
from modelyard_operator.domain.observed import Loaded, Observed, Seen
from modelyard_operator.domain.status import status_of

from tests.argocd.argo import ARGOCD, ROOT
from tests.argocd.controllers import NAMESPACE, Processes, Repository, controllers, documents, ensure, replace, serving
from tests.argocd.definitions import CannotHave
from tests.argocd.lua import HEALTH, health
from tests.chart.rendering import Document
from tests.cluster.conftest import Place
from tools.cluster.access import Cluster, CommandError
from tools.release import pin

sys.path.insert(0, str(ROOT / "services/operator/tests"))

from operator_yard import NOW, document, drift, managed, observed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]

DIGEST = "sha256:" + "a" * 64
LOOK_AGAIN_S = 5.0
PLACEHOLDER = "https://gitlab.example.com/modelyard/modelyard.git"
NAMESPACES = "deploy/argocd/namespaces/templates/namespaces.yaml"


@dataclass(frozen=True)
class Argo:
    """A running Argo CD with its repository."""

    cluster: Cluster
    repository: Repository
    processes: Processes

    def get(self, kind: str, name: str) -> Document | None:
        """Return an object of Argo CD's; None when there is none."""
        try:
            return self.cluster.get(f"--namespace={NAMESPACE}", f"{kind}.argoproj.io/{name}")
        except CommandError as error:
            if "NotFound" in str(error):
                return None
            raise

    def look(self, *applications: str) -> None:
        """Have git read again now, as a webhook does."""
        for name in ("modelyard-services", "modelyard-models"):
            if self.get("applicationset", name):
                self._annotate("applicationset", name, "argocd.argoproj.io/application-set-refresh=true")
        for name in applications:
            if self.get("application", name):
                self._annotate("application", name, "argocd.argoproj.io/refresh=normal")

    def _annotate(self, kind: str, name: str, annotation: str) -> None:
        words = (f"--namespace={NAMESPACE}", f"{kind}.argoproj.io/{name}", annotation, "--overwrite")
        self.cluster.kubectl("annotate", *words)

    def until(self, holds: Callable[[], bool], *applications: str, timeout_s: float = 120.0) -> None:
        """Wait until something holds, and say what Argo CD says when it does not come to hold."""
        looked = time.monotonic()

        def look() -> bool:
            nonlocal looked
            # What it did not notice it looks for in its own time: minutes.
            if time.monotonic() - looked > LOOK_AGAIN_S:
                self.look(*applications)
                looked = time.monotonic()
            return holds()

        def explain() -> str:
            kinds = "applications.argoproj.io,applicationsets.argoproj.io"
            shown = self.cluster.kubectl("get", f"--namespace={NAMESPACE}", kinds)
            told = [json.dumps((self.get("application", one) or {}).get("status"))[:3000] for one in applications]
            return "\n".join([shown, *told, self.processes.tail("application-controller")[-1500:]])

        self.cluster.eventually(look, timeout_s=timeout_s, explain=explain)

    def status(self, name: str) -> tuple[str, str]:
        """Return sync status and health of an Application; empty before it has them."""
        status = (self.get("application", name) or {}).get("status", {})
        return status.get("sync", {}).get("status", ""), status.get("health", {}).get("status", "")


def _content(folder: Path) -> Path:
    """Return what of the repository Argo CD reads, with two services in dev and in production."""
    content = folder / "content"
    skipped = shutil.ignore_patterns("charts", "Chart.lock")
    shutil.copytree(ROOT / "deploy", content / "deploy", ignore=skipped)
    shutil.rmtree(content / ARGOCD / "envs/staging")
    values = content / ARGOCD / "root/values.yaml"
    told = yaml.safe_load(values.read_text())
    del told["environments"]["staging"]
    values.write_text(yaml.safe_dump(told))
    for name in ("dev", "production"):
        release = content / ARGOCD / "envs" / name / "release.yaml"
        kept = [one for one in yaml.safe_load(release.read_text()) if one["service"] == "operator"]
        release.write_text(yaml.safe_dump(kept))
    return content


@pytest.fixture(scope="module")
def argo(place: Place, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Argo]:
    """Argo CD with its settings, and nothing of Modelyard yet; the namespaces chart in git is broken."""
    if place.node is None:
        pytest.skip("installs Argo CD and cluster-wide definitions: only on a cluster that the tests made")
    try:
        ensure()
    except CannotHave as reason:
        unavailable(str(reason))
    folder = tmp_path_factory.mktemp("argocd")
    with serving(_content(folder), folder) as repository, controllers(cluster, folder) as processes:
        replace(repository.clone / ARGOCD / "root/values.yaml", PLACEHOLDER, repository.url)
        (repository.clone / NAMESPACES).write_text('{{- fail "the chart is broken" }}\n')
        repository.commit("Begin")
        install = f"--kustomize={ROOT / ARGOCD}/install"
        cluster.kubectl("apply", "--server-side", "--field-manager=modelyard", install)
        yield Argo(cluster, repository, processes)


def test_a_wave_waits_for_the_applications_of_the_one_before(argo: Argo) -> None:
    root = (ROOT / ARGOCD / "root.yaml").read_text().replace(PLACEHOLDER, argo.repository.url)
    argo.cluster.apply(*documents(root), namespace=NAMESPACE)

    def waits() -> bool:
        operation = (argo.get("application", "modelyard") or {}).get("status", {}).get("operationState", {})
        return operation.get("message", "").endswith("modelyard-namespaces-main") and operation["phase"] == "Running"

    argo.until(lambda: argo.status("modelyard-crds-main") == ("Synced", "Healthy"), "modelyard-crds-main")
    argo.until(waits, "modelyard", "modelyard-namespaces-main")
    assert argo.get("appproject", "modelyard-dev")
    assert argo.get("applicationset", "modelyard-services") is None

    shutil.copy(ROOT / NAMESPACES, argo.repository.clone / NAMESPACES)
    argo.repository.commit("Mend the chart")
    argo.look("modelyard-namespaces-main")

    argo.until(lambda: argo.get("applicationset", "modelyard-services") is not None, "modelyard")
    assert argo.status("modelyard-namespaces-main") == ("Synced", "Healthy")
    labels = argo.cluster.get("namespace", "modelyard-dev")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def _image(argo: Argo, namespace: str) -> str:
    try:
        found = argo.cluster.get(f"--namespace={namespace}", "deployment/modelyard-operator")
    except CommandError as error:
        if "NotFound" in str(error):
            return ""
        raise
    image: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_dev_runs_what_its_release_names_and_production_waits_for_a_person(argo: Argo) -> None:
    argo.until(lambda: argo.status("modelyard-dev-operator")[0] == "Synced", "modelyard-dev-operator")
    argo.until(lambda: argo.status("modelyard-production-operator")[0] == "OutOfSync", "modelyard-production-operator")

    assert _image(argo, "modelyard-dev").endswith("@sha256:" + "0" * 64)
    assert _image(argo, "modelyard-production") == ""


def test_a_pinned_digest_is_deployed(argo: Argo) -> None:
    pin(argo.repository.clone / ARGOCD / "envs", "dev", {"operator": DIGEST})
    argo.repository.commit("Pin the operator")
    argo.look("modelyard-dev-operator")

    argo.until(lambda: _image(argo, "modelyard-dev").endswith(DIGEST), "modelyard-dev-operator")


def test_what_is_changed_by_hand_is_undone(argo: Argo) -> None:
    argo.cluster.kubectl("delete", "--namespace=modelyard-dev", "service/modelyard-operator")
    argo.cluster.kubectl("scale", "--namespace=modelyard-dev", "deployment/modelyard-operator", "--replicas=3")

    def undone() -> bool:
        deployment = argo.cluster.get("--namespace=modelyard-dev", "deployment/modelyard-operator")
        services = argo.cluster.get("--namespace=modelyard-dev", "services")["items"]
        return deployment["spec"]["replicas"] == 1 and len(services) == 1

    argo.until(undone, "modelyard-dev-operator")


def test_a_project_s_limits_hold_whatever_git_says(argo: Argo) -> None:
    values = argo.repository.clone / ARGOCD / "envs/dev/operator.yaml"
    before = values.read_text()
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "intruder"}}
    values.write_text(before + json.dumps({"extraObjects": [role]})[1:-1] + "\n")
    argo.repository.commit("Reach out of the project")
    argo.look("modelyard-dev-operator")

    def refused() -> bool:
        status = (argo.get("application", "modelyard-dev-operator") or {}).get("status", {})
        return "not permitted in project" in json.dumps(status.get("operationState", {}))

    argo.until(refused, "modelyard-dev-operator")
    with pytest.raises(CommandError, match="NotFound"):
        argo.cluster.get("clusterrole/intruder")
    values.write_text(before)
    argo.repository.commit("Do not")
    argo.look("modelyard-dev-operator")


STATES: dict[str, tuple[str, Observed]] = {
    "served": ("Healthy", observed()),
    "drifting": ("Healthy", observed(drift=Seen(drift("critical", ("price",))))),
    "not loaded": ("Degraded", observed(loaded=Seen(Loaded(frozenset(), "its digest is wrong")))),
    "refused": ("Degraded", observed(refused="gate: no such metric")),
}


def test_a_model_s_health_in_argo_cd_is_what_its_script_says_here(argo: Argo) -> None:
    folder = argo.repository.clone / ARGOCD / "envs/dev/models"
    folder.mkdir()
    (folder / "m.yaml").write_text(yaml.safe_dump(document()))
    argo.repository.commit("Bring a model")
    argo.look()
    application = "modelyard-dev-models"
    argo.until(lambda: argo.status(application) == ("Synced", "Progressing"), application)

    for expected, seen in STATES.values():
        _write_status(argo, seen)
        argo.until(lambda wanted=expected: argo.status(application)[1] == wanted, application)
        stored = argo.cluster.get("--namespace=modelyard-dev", "managedmodels/m")
        assert health(HEALTH / "managedmodel.lua", stored)[0] == expected


def _write_status(argo: Argo, seen: Observed) -> None:
    assert seen.object == managed()
    status = status_of(seen, NOW).model_dump(mode="json", by_alias=True, exclude_none=True)
    patch = json.dumps({"status": status})
    words = ("--namespace=modelyard-dev", "managedmodels/m", "--subresource=status", "--type=merge", f"--patch={patch}")
    argo.cluster.kubectl("patch", *words)
