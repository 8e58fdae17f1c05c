"""MLflow's chart against MLflow: its commands, started with its environment, do what its probes and callers expect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from modelyard_common.testing import free_port

from tests.chart.processes import wait_until_ok
from tests.chart.rendering import Document, Helm, environment, pods, umbrella

_START_S = 90.0
# Two migrations and a start of MLflow take half a minute on two cores of their own.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def containers(helm: Helm) -> Mapping[str, Document]:
    """The containers of the small platform, by component."""
    return {pod.component: pod.spec["containers"][0] for pod in pods(umbrella(helm, "small", "plain"))}


def told(container: Document, folder: Path, **changed: str) -> dict[str, str]:
    """Return a container's environment, with a database and folders of this test."""
    found = environment(container)
    assert found["MLFLOW_BACKEND_STORE_URI"] == "secret:modelyard-database/mlflow"
    # The image's PATH finds mlflow, as ours does.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {"PATH": path, "HOME": str(folder), "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db"}
    return found | here | changed


@pytest.fixture(scope="module")
def server(containers: Mapping[str, Document], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Migrate as the hook does, twice; start MLflow as the pod does, at another port; give its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    migration = containers["mlflow-migration"]
    variables = told(migration, folder)
    command = [
        word.replace("$(MLFLOW_BACKEND_STORE_URI)", variables["MLFLOW_BACKEND_STORE_URI"])
        for word in migration["command"]
    ]
    for _ in range(2):
        subprocess.run(command, env=variables, cwd=folder, check=True, capture_output=True, timeout=120)
    port = free_port()
    local = {
        "MLFLOW_PORT": str(port),
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_ARTIFACTS_DESTINATION": f"{folder}/artifacts",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            containers["mlflow"]["command"],
            env=told(containers["mlflow"], folder, **local),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_ok(f"{base}/health", process, folder / "log", timeout_s=_START_S)
        yield base
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_probes_answer_as_the_kubelet_asks(server: str, containers: Mapping[str, Document]) -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = containers["mlflow"][probe]["httpGet"]
        # The kubelet calls the pod's address, which is no name that MLflow knows.
        headers = {"host": "10.0.0.7:8085"} | {
            one["name"].lower(): one["value"] for one in asked.get("httpHeaders", [])
        }

        assert httpx.get(server + asked["path"], headers=headers, timeout=10).status_code == 200, probe


def test_those_who_come_through_the_service_are_answered_and_strangers_are_not(
    server: str, containers: Mapping[str, Document]
) -> None:
    url = f"{server}/api/2.0/mlflow/experiments/search?max_results=1"
    callers = {
        urlsplit(environment(containers["registry"])["MODELYARD_REGISTRY_MLFLOW_URL"]).netloc,
        urlsplit(environment(containers["training"])["MODELYARD_TRAINING_MLFLOW_URL"]).netloc,
        "modelyard-mlflow.ml.svc.cluster.local:8085",
    }

    answers = {host: httpx.get(url, headers={"host": host}, timeout=10).status_code for host in callers}

    assert set(answers.values()) == {200}, answers
    assert httpx.get(url, headers={"host": "evil.example.org"}, timeout=10).status_code == 403
