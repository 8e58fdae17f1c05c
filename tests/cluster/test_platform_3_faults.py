"""What goes wrong on a cluster, made to go wrong: each ends in a state that `kubectl get` explains.

The version that serves goes on serving, and no run is made twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from modelyard_cli.demo.stream import Stream
from modelyard_client import Modelyard
from modelyard_client.inference import tensors
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunView

from tests.cluster.installation import Installation
from tests.cluster.load import load
from tests.cluster.managed_model import MODEL, SEEN_S, apply_manifest, columns, condition, only_by_hand, trainer_jobs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

RUN_S = 240.0


@pytest.fixture(scope="module", autouse=True)
def by_hand(platform: Installation, stream: Stream) -> None:
    """Nothing but these tests changes the model."""
    with platform.client() as client:
        only_by_hand(platform, client, stream)


@pytest.fixture(autouse=True)
def asked(platform: Installation, image: Callable[[str], str], stream: Stream) -> Iterator[None]:
    """Ask the model all the while: whatever breaks, its answers do not."""
    body = {"inputs": tensors([stream.features[0]]), "parameters": {"event_time": stream.times[0].isoformat()}}
    with load(platform, image("inference"), MODEL, body, connections=2, pause_s=0.1) as seen:
        yield
    assert seen.failures == []
    assert len(seen.answered) == 1


def test_a_trainer_that_runs_out_of_memory_says_so_and_is_not_tried_again(
    platform: Installation, client: Modelyard, stream: Stream
) -> None:
    champion = columns(platform)["CHAMPION"]

    def apply() -> None:
        apply_manifest(platform, client, stream, when=[], seed=21, resources={"memory": "96Mi"})

    run = _next_run(platform, client, apply)
    platform.eventually(lambda: client.training.run(run).state in TERMINAL_STATES, timeout_s=RUN_S)
    platform.eventually(lambda: "OOMKilled" in condition(platform, "Trained")["message"], timeout_s=SEEN_S)

    trained, shown = condition(platform, "Trained"), columns(platform)
    assert (trained["status"], trained["reason"]) == ("False", "RunFailed")
    assert "raise spec.train.resources.memory" in trained["message"]
    assert (shown["READY"], shown["CHAMPION"]) == ("True", champion)
    assert len(_jobs_of(platform, run)) == 1


def test_a_job_that_is_deleted_by_hand_ends_its_run_and_is_not_made_again(
    platform: Installation, client: Modelyard, stream: Stream
) -> None:
    versions = len(client.registry.versions(MODEL))

    run = _next_run(platform, client, lambda: apply_manifest(platform, client, stream, when=[], seed=22))
    platform.eventually(lambda: bool(_jobs_of(platform, run)), timeout_s=SEEN_S)
    platform.kubectl("delete", "job", f"--selector=modelyard.dev/run={run}", "--wait=false")
    platform.eventually(lambda: client.training.run(run).state in TERMINAL_STATES, timeout_s=RUN_S)
    platform.eventually(lambda: _has_failed(platform, run), timeout_s=SEEN_S)

    ended, trained = client.training.run(run), condition(platform, "Trained")
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert "somebody deleted" in trained["message"]
    assert len(client.registry.versions(MODEL)) == versions
    assert _jobs_of(platform, run) == []


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"inference.image.tag": "absent"}, "ImagePull|ErrImage"),
        ({"inference.auth.existingSecret": "absent"}, 'secret "absent" not found'),
    ],
    ids=["image", "Secret"],
)
def test_an_upgrade_that_cannot_start_is_shown_and_leaves_the_old_pods_serving(
    platform: Installation, values: dict[str, Any], shown: str
) -> None:
    before = columns(platform)["CHAMPION"]

    with pytest.raises(AssertionError, match=shown):
        platform.upgrade(timeout="25s", **values)
    ready = platform.get("deployment/modelyard-inference")["status"]["readyReplicas"]
    told = columns(platform)

    platform.helm("rollback", "modelyard", "--wait", "--timeout=200s")
    assert ready == 2
    assert (told["READY"], told["CHAMPION"]) == ("True", before)


def test_a_trainer_whose_image_is_not_there_ends_its_run_with_that_reason(
    platform: Installation, client: Modelyard, stream: Stream
) -> None:
    platform.upgrade(**{"training.jobs.image.tag": "absent", "training.jobs.startPatienceSeconds": 5})

    with platform.client() as again:
        run = _next_run(platform, again, lambda: apply_manifest(platform, again, stream, when=[], seed=23))
        platform.eventually(lambda: again.training.run(run).state in TERMINAL_STATES, timeout_s=RUN_S)
        jobs = len(_jobs_of(platform, run))
    platform.eventually(lambda: _has_failed(platform, run), timeout_s=SEEN_S)
    trained = condition(platform, "Trained")

    platform.upgrade()
    assert re.search("ImagePull|ErrImage", trained["message"])
    assert jobs == 1


def test_a_migration_that_fails_stops_the_upgrade_before_anything_changed(platform: Installation) -> None:
    before = _generations(platform)
    url = "postgresql://registry:wrong@postgresql:5432/registry"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}, "stringData": {"registry": url}}
    platform.cluster.apply(secret, namespace=platform.namespace)

    with pytest.raises(AssertionError, match=r"pre-upgrade hooks failed"):
        platform.upgrade(**{"registry.migrations.database.existingSecret": "wrong", "registry.migrations.retries": 0})
    job = platform.get("job/modelyard-registry-migration")
    (pod,) = platform.get("pods", "--selector=job-name=modelyard-registry-migration")["items"]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]

    assert "Failed" in {one["type"] for one in job["status"]["conditions"] if one["status"] == "True"}
    assert "password authentication failed" in ended["message"]
    assert len(before) == 6
    assert _generations(platform) == before
    # Its Job stays to be read until the next that succeeds.
    platform.upgrade()
    assert platform.kubectl("get", "jobs", "--selector=app.kubernetes.io/component=registry-migration") == ""


def _generations(platform: Installation) -> dict[str, int]:
    """Return how often each workload of the release was changed."""
    found = platform.get("deployments,statefulsets", "--selector=app.kubernetes.io/instance=modelyard")["items"]
    return {one["metadata"]["name"]: one["metadata"]["generation"] for one in found}


def _next_run(platform: Installation, client: Modelyard, act: Callable[[], Any]) -> str:
    """Return the run that follows from something."""
    before = {run.id for run in client.training.runs(MODEL)}
    act()

    def new() -> list[RunView]:
        return [run for run in client.training.runs(MODEL) if run.id not in before]

    platform.eventually(lambda: bool(new()), timeout_s=SEEN_S)
    (run,) = new()
    return run.id


def _has_failed(platform: Installation, run: str) -> bool:
    """Return whether the model's status says that a run failed."""
    trained = condition(platform, "Trained")
    return trained["reason"] == "RunFailed" and run in trained["message"]


def _jobs_of(platform: Installation, run: str) -> list[dict[str, Any]]:
    return [job for job in trainer_jobs(platform) if job["metadata"]["labels"]["modelyard.dev/run"] == run]
