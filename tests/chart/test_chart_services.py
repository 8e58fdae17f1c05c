"""Each service as a process with the environment of its pod, after the migration with the environment of its Job."""

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
from modelyard_common.testing.databases import *  # noqa: F403  # fixtures
from sqlalchemy import create_engine, text

from tests.chart.processes import wait_until_ok
from tests.chart.rendering import Helm, PodSpec, environment, pods, umbrella

MIGRATED = ("registry", "training", "drift")
SERVICES = (*MIGRATED, "inference", "operator")
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: x
"""


@pytest.fixture(scope="module")
def found(helm: Helm) -> dict[str, PodSpec]:
    """The pods of the small platform, by component."""
    return {pod.component: pod for pod in pods(umbrella(helm, "small", "plain"))}


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    """Give an empty PostgreSQL database, named by a URL as the Secret has it."""
    name = f"c{time.monotonic_ns()}"
    admin = create_engine(postgres_server.replace("postgresql://", "postgresql+psycopg://", 1)).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    base, _, query = postgres_server.partition("?")
    yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def here(pod: PodSpec, folder: Path, database_url: str) -> dict[str, str]:
    """Return a pod's environment with this machine's files in the place of its mounts."""
    told = environment(pod.spec["containers"][0])
    (folder / "tokens").write_text(f"me client {hash_token('mine')}\n")
    (folder / "token").write_text("mine\n")
    (folder / "kubeconfig").write_text(NOWHERE)
    mounts = {"/etc/modelyard/auth": str(folder), "/data": str(folder / "data"), "/tmp": str(folder)}
    for name, value in told.items():
        if value.startswith("secret:"):
            told[name] = database_url
        for mounted, real in mounts.items():
            if value == mounted or value.startswith(f"{mounted}/"):
                told[name] = real + value.removeprefix(mounted)
    return told | {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(service: str, told: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a service as its image does, at another port; give the process and its address."""
    port = free_port()
    prefix = f"MODELYARD_{service.upper()}_"
    told |= {f"{prefix}PORT": str(port), f"{prefix}HOST": "127.0.0.1", f"{prefix}GRPC_PORT": "0"}
    if service in ("training", "operator"):
        told[f"{prefix}KUBECONFIG"] = str(log.parent / "kubeconfig")
    with log.open("wb") as output:
        command = [sys.executable, "-P", "-m", f"modelyard_{service}.main"]
        process = subprocess.Popen(command, env=told, cwd=log.parent, stdout=output, stderr=output)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_starts_asks_for_tokens_and_ends_in_the_time_that_it_has(
    found: dict[str, PodSpec], service: str, database_url: str, tmp_path: Path
) -> None:
    if service in MIGRATED:
        job = found[f"{service}-migration"]
        command = [sys.executable, *job.spec["containers"][0]["command"][1:]]
        subprocess.run(command, env=here(job, tmp_path, database_url), check=True, capture_output=True, timeout=60)
    pod, log = found[service], tmp_path / "log"
    [container] = pod.spec["containers"]

    with running(service, here(pod, tmp_path, database_url), log) as (process, url):
        for probe in ("startupProbe", "livenessProbe"):
            wait_until_ok(url + container[probe]["httpGet"]["path"], process, log)
        if service in MIGRATED:  # the others are ready when the registry, or the cluster, has been heard
            wait_until_ok(url + container["readinessProbe"]["httpGet"]["path"], process, log)
        without = httpx.get(f"{url}/docs", timeout=5).status_code
        mine = httpx.get(f"{url}/docs", headers={"authorization": "Bearer mine"}, timeout=5).status_code
        metrics = httpx.get(f"{url}/metrics", timeout=5)
        process.send_signal(signal.SIGTERM)
        process.wait(pod.spec["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"])

    assert (without, mine, metrics.status_code) == (401, 200, 200)
    assert process.returncode == 0, log.read_text()[-3000:]


@pytest.mark.parametrize("service", MIGRATED)
def test_a_pod_without_its_migration_ends_and_says_what_to_run(
    found: dict[str, PodSpec], service: str, database_url: str, tmp_path: Path
) -> None:
    with running(service, here(found[service], tmp_path, database_url), tmp_path / "log") as (process, _):
        process.wait(60)

    assert process.returncode != 0
    # The container's termination message is the end of its log.
    assert f"python -m modelyard_{service}.migrate" in (tmp_path / "log").read_text()[-2048:]
