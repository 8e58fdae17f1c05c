"""The registry before a real MLflow server: mirrored, read by an unmodified client, and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import free_port, running
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build
from registry_fakes import FakeEvidence, document

HERE = Path(__file__).parent
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass
class Mlflow:
    url: str
    process: subprocess.Popen[bytes]


def python(script: str, *arguments: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=os.environ | QUIET | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def until(condition: Any, within_s: float = 30.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | QUIET, stdout=log, stderr=log, start_new_session=True)
    server = Mlflow(f"http://127.0.0.1:{port}", process)
    try:
        until(lambda: answers(server.url) or process.poll() is not None, 90)
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait(20)


SAME = [
    "/api/2.0/mlflow/registered-models/get?name=real",
    "/api/2.0/mlflow/registered-models/get?name=nobody",
    "/api/2.0/mlflow/registered-models/alias?name=real&alias=champion",
    "/api/2.0/mlflow/registered-models/alias?name=real&alias=nobody",
    "/api/2.0/mlflow/registered-models/search?max_results=5",
    "/api/2.0/mlflow/model-versions/get?name=real&version=1",
    "/api/2.0/mlflow/model-versions/get?name=real&version=99",
    "/api/2.0/mlflow/model-versions/search?filter=name%3D%27real%27",
    "/api/2.0/mlflow/model-versions/get-download-uri?name=real&version=1",
    "/api/2.0/mlflow/experiments/get-by-name?experiment_name=real",
    "/api/2.0/mlflow-artifacts/artifacts?path=1",
    "/api/3.0/mlflow/server-info",
]


@pytest.mark.timeout(240)
def test_unmodified_client_reads_through_the_registry_and_changes_nothing(
    mlflow_server: Mlflow, tmp_path: Path
) -> None:
    written = python("mlflow_writer.py", mlflow_server.url, "real")
    settings = RegistrySettings(data_dir=tmp_path, mlflow_url=mlflow_server.url, drain_s=0)
    database = Database(f"sqlite:///{tmp_path / 'r.db'}")
    upgrade(database, "modelyard_registry")
    app = build(settings, database, evidence=FakeEvidence())
    with running(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        http.put("/v1/models/real", json=document("real", gate=[])).raise_for_status()
        body = {"digest": written["digest"], "mlflow_run_id": written["run"], "run": "external"}
        registered = http.post("/v1/models/real/versions", json=body)
        assert registered.status_code == 201, registered.text
        until(lambda: http.get("/v1/models/real/versions/1").json()["mirrored"])
        path = "/api/2.0/mlflow/registered-models/alias?name=real&alias=champion"
        until(lambda: httpx.get(mlflow_server.url + path, trust_env=False).is_success)

        found = python("mlflow_reader.py", "real", MLFLOW_TRACKING_URI=url, MLFLOW_REGISTRY_URI=url)
        assert found["models"] == ["real"]
        assert (found["versions"], found["champion"], found["runs"]) == (["1"], "1", 1)
        assert found["tags"]["modelyard.digest"] == written["digest"]
        assert found["says"] == found["generic"] == written["says"]
        assert found["missing"].startswith("INVALID_PARAMETER_VALUE")
        assert found["unknown"].startswith("RESOURCE_DOES_NOT_EXIST")
        for change in ("create", "alias", "delete", "run"):
            assert found[change].startswith("PERMISSION_DENIED"), found[change]
            assert "is refused" in found[change]

        for same in SAME:
            direct = httpx.get(mlflow_server.url + same, trust_env=False)
            passed = http.get(same)
            assert (passed.status_code, passed.json()) == (direct.status_code, direct.json()), same

        os.killpg(mlflow_server.process.pid, 9)
        mlflow_server.process.wait(20)
        began = time.monotonic()
        away = http.get("/api/2.0/mlflow/registered-models/search")
        assert (away.status_code, away.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        assert time.monotonic() - began < 5
        assert http.get("/v1/models/real/versions/1/files/MLmodel").is_success
        waited = python("mlflow_waiter.py", MLFLOW_TRACKING_URI=url, MLFLOW_REGISTRY_URI=url)
        assert "503" in waited["error"]
        assert waited["seconds"] < 30, "a stock client with its own retries waits 245 s without Retry-After"
        assert "cannot be reached" in http.get("/health/ready").json()["checks"]["mlflow"]
