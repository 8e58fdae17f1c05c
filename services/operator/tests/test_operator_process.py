"""The operator as a process: follows objects, agrees with its replicas, survives kills and outages, leaves in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_client import RegistryClient
from modelyard_common.auth.tokens import hash_token
from modelyard_common.testing import free_port
from modelyard_common.testing.api_server import ApiServer
from modelyard_operator.settings import OperatorSettings
from operator_yard import document
from pydantic import ValidationError

MM = "managedmodels"


def eventually(check: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


@dataclass
class Operator:
    process: subprocess.Popen[bytes]
    url: str

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, timeout=5, trust_env=False)
        except httpx.HTTPError:
            return None

    def ready(self) -> bool:
        answer = self.get("/health/ready")
        return answer is not None and answer.status_code == 200

    def leads(self) -> bool:
        answer = self.get("/metrics")
        return answer is not None and "modelyard_operator_leader 1.0" in answer.text


@contextmanager
def operator(kubeconfig: Path, registry_url: str, training_url: str, nowhere: str, **more: str) -> Iterator[Operator]:
    port = free_port()
    values = {
        "PORT": str(port),
        "KUBECONFIG": str(kubeconfig),
        "REGISTRY_URL": registry_url,
        "TRAINING_URL": training_url,
        "DRIFT_URL": nowhere,
        "INFERENCE_URL": nowhere,
        "RESYNC_S": "0.5",
        "WATCH_S": "1",
        "LEASE_S": "3",
        "CALL_TIMEOUT_S": "5",
        "DRAIN_S": "0",
    } | more
    environment = {"PATH": os.environ["PATH"]} | {f"MODELYARD_OPERATOR_{key}": value for key, value in values.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard_operator.main"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield Operator(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait(20)


def status(server: ApiServer, name: str = "m") -> dict[str, Any]:
    found: dict[str, Any] = server.get(MM, name).get("status", {})
    return found


@pytest.mark.slow
def test_a_model_is_followed_from_apply_to_delete_over_kills_and_outages(
    server: ApiServer, kubeconfig: Path, registry_url: str, training_url: str, nowhere: str
) -> None:
    server.create(MM, document())
    registry = RegistryClient(registry_url)
    with operator(kubeconfig, registry_url, training_url, nowhere) as first:
        eventually(lambda: status(server).get("observedGeneration") == 1)
        eventually(first.ready)
        # The dataset is nowhere: training says so, and the object shows it.
        run = eventually(lambda: (status(server).get("run") or {}).get("state") == "failed" and status(server)["run"])
        assert run["id"].startswith("run-")
        stalled = eventually(lambda: [c for c in status(server)["conditions"] if c["reason"] == "RunFailed"])
        assert "there is no dataset" in stalled[0]["message"]
        first.process.kill()
        first.process.wait(20)
    server.modify(MM, "m", {"spec": {"description": "while nobody looked"}})
    with operator(kubeconfig, registry_url, training_url, nowhere) as second:
        eventually(lambda: status(server).get("observedGeneration") == 2)
        server.away = True
        eventually(lambda: not second.ready())
        server.away = False
        server.modify(MM, "m", {"spec": {"description": "after the outage"}})
        eventually(lambda: registry.model("m").spec.get("description") == "after the outage")
        server.remove(MM, "m")
        eventually(lambda: not server.all(MM))
        assert registry.models() == []
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(30) == 0
    assert "holderIdentity" not in server.get("leases", "modelyard-operator")["spec"]
    assert not any("spec" in (body or {}) for _, path, body in server.requests if MM in path)
    registry.close()


def test_of_two_replicas_one_works_and_the_other_takes_over(
    server: ApiServer, kubeconfig: Path, registry_url: str, training_url: str, nowhere: str
) -> None:
    with ExitStack() as stack:
        pair = [stack.enter_context(operator(kubeconfig, registry_url, training_url, nowhere)) for _ in range(2)]
        eventually(lambda: all(one.ready() for one in pair))
        leader = eventually(lambda: next((one for one in pair if one.leads()), None))
        (other,) = (one for one in pair if one is not leader)
        assert not other.leads()
        leader.process.kill()
        server.create(MM, document())
        eventually(lambda: status(server).get("observedGeneration") == 1)
        assert other.leads()


def test_an_operator_that_others_can_reach_asks_for_a_token_and_shows_its_health_without(
    server: ApiServer, kubeconfig: Path, nowhere: str, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"prometheus client {hash_token('secret')}\n")
    more = {"HOST": "0.0.0.0", "AUTH": "token", "TOKENS_FILE": str(tokens)}
    with operator(kubeconfig, nowhere, nowhere, nowhere, **more) as one:
        eventually(one.ready)
        answer = one.get("/openapi.json")
        assert answer is not None
        assert answer.status_code == 401


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="namespace"):
        OperatorSettings(namespace="Not_One")
    assert OperatorSettings().identity != OperatorSettings().identity
    assert OperatorSettings().port == 8084
