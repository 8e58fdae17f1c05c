"""The registry as a process: light, guarded, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from modelyard_common.auth.tokens import hash_token
from modelyard_common.testing import free_port
from registry_fakes import document


@contextmanager
def process(folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    environment = {f"MODELYARD_REGISTRY_{name.upper()}": value for name, value in settings.items()}
    environment |= {"MODELYARD_REGISTRY_PORT": str(port), "MODELYARD_REGISTRY_DATA_DIR": str(folder)}
    environment |= {"MODELYARD_REGISTRY_MLFLOW_URL": "http://127.0.0.1:9", "MODELYARD_REGISTRY_DRAIN_S": "0"}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "modelyard_registry.main"]
        started = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as http:
        try:
            ends = time.monotonic() + 40
            while True:
                assert started.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < ends, "the registry did not start"
                try:
                    if http.get("/health/ready").is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield started, http
        finally:
            started.kill()
            started.wait(20)


def test_registry_never_imports_numpy() -> None:
    heavy = "{'numpy', 'scipy', 'pandas', 'pyarrow', 'sklearn', 'mlflow', 'onnxruntime'}"
    program = f"import sys, modelyard_registry.main; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


def test_killed_registry_comes_back_with_all_it_acknowledged(tmp_path: Path) -> None:
    with process(tmp_path) as (started, http):
        for number in range(3):
            assert http.put(f"/v1/models/m{number}", json=document(f"m{number}")).status_code == 201
        started.send_signal(signal.SIGKILL)
        started.wait(20)
    with process(tmp_path) as (_, http):
        assert [model["name"] for model in http.get("/v1/models").json()["items"]] == ["m0", "m1", "m2"]
        ledger = http.get("/v1/ledger").json()
        assert (ledger["intact"], len(ledger["items"])) == (True, 3)


def test_open_watch_does_not_keep_the_process_from_stopping(tmp_path: Path) -> None:
    with process(tmp_path) as (started, http), http.stream("GET", "/v1/watch") as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 1000"
        started.send_signal(signal.SIGTERM)
        assert started.wait(10) in (0, -signal.SIGTERM)


def test_registry_refuses_to_listen_beyond_loopback_without_tokens(tmp_path: Path) -> None:
    settings = {"MODELYARD_REGISTRY_HOST": "0.0.0.0", "MODELYARD_REGISTRY_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard_registry.main"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "set auth=token" in done.stderr


def test_roles_decide_who_may_change_what_and_the_ledger_knows_the_name(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    people = [("ada", "admin"), ("drift", "service"), ("bob", "client")]
    tokens.write_text("".join(f"{name} {role} {hash_token(f'secret-{name}')}\n" for name, role in people))
    with process(tmp_path, auth="token", tokens_file=str(tokens)) as (_, http):

        def call(who: str | None, method: str, path: str, **arguments: object) -> int:
            headers = {"Authorization": f"Bearer secret-{who}"} if who else {}
            return http.request(method, path, headers=headers, **arguments).status_code  # type: ignore[arg-type]

        assert call("bob", "PUT", "/v1/models/m", json=document()) == 403
        assert call("ada", "PUT", "/v1/models/m", json=document()) == 201
        assert call("bob", "GET", "/v1/models/m") == 200
        assert call("bob", "POST", "/v1/models/m/plan", json=document()) == 200
        assert call(None, "POST", "/v1/models/m/plan", json=document()) == 401
        report = {"instance": "i", "digest": "sha256:" + "0" * 64, "revision": 1, "outcome": "serving"}
        assert call("drift", "POST", "/v1/models/m/runtime-reports", json=report) == 204
        for path in ("/v1/models", "/v1/ledger", "/v1/watch", "/api/2.0/mlflow/registered-models/search", "/graphql"):
            assert call(None, "GET", path) == 401, path
        ledger = http.get("/v1/ledger", headers={"Authorization": "Bearer secret-bob"}).json()
        assert [entry["actor"] for entry in ledger["items"]] == ["ada"]


@pytest.mark.parametrize("path", ["/health/live", "/metrics"])
def test_probes_need_no_token(tmp_path: Path, path: str) -> None:
    (tmp_path / "tokens").write_text("")
    with process(tmp_path, auth="token", tokens_file=str(tmp_path / "tokens")) as (_, http):
        answer = http.get(path)
        assert answer.status_code == 200
        if path == "/metrics":
            assert "modelyard_registry_mirror_pending" in answer.text
