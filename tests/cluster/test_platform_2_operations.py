"""What ops people do to a platform in use: upgrade, roll back, let it scale, drain a node. No request may notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from modelyard_cli.demo.stream import Stream
from modelyard_client import Modelyard
from modelyard_client.inference import tensors

from tests.cluster.installation import Installation
from tests.cluster.load import load
from tests.cluster.managed_model import MODEL, only_by_hand
from tools.cluster.access import CommandError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

ROLLED = ("registry", "training", "inference", "drift", "operator", "mlflow")
SCALED_S = 240.0
# What was answered is in drift's log when the spool has been sent.
LOGGED_S = 60.0
AUTOSCALING = {
    "enabled": True,
    "minReplicas": 2,
    "maxReplicas": 3,
    "targetCpuPercent": 80,
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
}


@pytest.fixture(scope="module", autouse=True)
def by_hand(platform: Installation, stream: Stream) -> None:
    """Nothing but these tests changes the model."""
    with platform.client() as client:
        only_by_hand(platform, client, stream)


@pytest.fixture
def body(stream: Stream) -> dict[str, Any]:
    """A row of the past: its event time moves no clock."""
    return {"inputs": tensors([stream.features[0]]), "parameters": {"event_time": stream.times[0].isoformat()}}


def test_an_upgrade_of_everything_and_its_rollback_fail_no_request_and_lose_no_record(
    platform: Installation, client: Modelyard, image: Callable[[str], str], body: dict[str, Any]
) -> None:
    before, first = client.drift.status(MODEL).requests, _uids(platform)

    with load(platform, image("inference"), MODEL, body) as seen:
        platform.upgrade(**{f"{name}.podAnnotations": {"example.org/rolled": "1"} for name in ROLLED})
        upgraded = _uids(platform)
        platform.helm("rollback", "modelyard", "1", "--wait", "--timeout=400s")
        rolled_back = _uids(platform)

    assert seen.failures == []
    assert seen.total > 100
    assert first.isdisjoint(upgraded)
    assert upgraded.isdisjoint(rolled_back)
    with platform.client() as again:
        platform.eventually(lambda: again.drift.status(MODEL).requests >= before + seen.total, timeout_s=LOGGED_S)


def test_inference_scales_out_under_load_and_in_again_and_fails_no_request(
    platform: Installation, image: Callable[[str], str], body: dict[str, Any]
) -> None:
    platform.upgrade(**{"inference.autoscaling": AUTOSCALING})

    with load(platform, image("inference"), MODEL, body, connections=8, pause_s=0.0) as heavy:
        platform.eventually(lambda: _ready(platform) == 3, timeout_s=SCALED_S)
    with load(platform, image("inference"), MODEL, body, connections=1, pause_s=0.5) as light:
        platform.eventually(lambda: _ready(platform) == 2, timeout_s=SCALED_S)

    assert heavy.failures == light.failures == []


def test_a_drain_takes_one_replica_at_a_time_and_fails_no_request(
    platform: Installation, image: Callable[[str], str], body: dict[str, Any]
) -> None:
    one, other = sorted(pod["metadata"]["name"] for pod in _pods(platform))

    with load(platform, image("inference"), MODEL, body) as seen:
        _evict(platform, one)
        with pytest.raises(CommandError, match="disruption budget"):
            _evict(platform, other)
        platform.eventually(lambda: _ready(platform) == 2 and one not in _names(platform), timeout_s=90)
        _evict(platform, other)
        platform.eventually(lambda: _ready(platform) == 2 and other not in _names(platform), timeout_s=90)

    assert seen.failures == []


def _pods(platform: Installation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.get("pods", "--selector=app.kubernetes.io/name=inference")["items"]
    return found


def _names(platform: Installation) -> set[str]:
    return {pod["metadata"]["name"] for pod in _pods(platform)}


def _ready(platform: Installation) -> int:
    """Return the replicas that are ready, where none is coming or going."""
    status = platform.get("deployment/modelyard-inference")["status"]
    return int(status.get("readyReplicas", 0)) if len(_pods(platform)) == status.get("replicas") else -1


def _uids(platform: Installation) -> set[str]:
    """Return the services' pods that are there to stay, by what tells a pod from another of the same name."""
    pods = platform.get("pods", f"--selector=app.kubernetes.io/name in ({','.join(ROLLED)})")["items"]
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def _evict(platform: Installation, pod: str) -> None:
    """Ask for an eviction, as `kubectl drain` does; raise CommandError when a budget forbids it."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{platform.namespace}/pods/{pod}/eviction"
    platform.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
