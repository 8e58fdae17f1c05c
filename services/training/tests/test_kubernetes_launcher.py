"""What only a cluster can do to a launcher: refuse, be away, lose pods with their logs; and how it is set up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_kubelet import FakeKubelet
from modelyard_common.clock import SystemClock
from modelyard_common.cluster import Cluster
from modelyard_common.db import Database
from modelyard_common.errors import Denied, Invalid, Unavailable
from modelyard_common.testing import running
from modelyard_common.testing.api_server import ApiServer, Refusal, kubeconfig_of
from modelyard_training.adapters.launchers.job_manifest import JobTemplate, job_name
from modelyard_training.adapters.launchers.kubernetes import KubernetesLauncher
from modelyard_training.domain.ports import Job
from modelyard_training.domain.runs import State, Trigger
from modelyard_training.domain.supervision import Presence
from modelyard_training.settings import TrainingSettings
from modelyard_training.usecases.submit import Submission
from modelyard_training.wiring import build
from pydantic import ValidationError

RUN = "run-1"
FAKE_JOB = (sys.executable, "-S", str(Path(__file__).with_name("fake_job.py")))


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Iterator[Path]:
    with running(server.app) as url:
        yield kubeconfig_of(tmp_path, url)


@pytest.fixture
def launcher(kubeconfig: Path, tmp_path: Path) -> Iterator[KubernetesLauncher]:
    with Cluster.connect(kubeconfig, timeout_s=5) as cluster:
        yield KubernetesLauncher(
            cluster,
            namespace="default",
            template=JobTemplate(image="trainer:1", command=FAKE_JOB, grace_s=1),
            logs=tmp_path / "logs",
            clock=SystemClock(),
            patience_s=0,
        )


@pytest.fixture
def kubelet(server: ApiServer, tmp_path: Path) -> Iterator[FakeKubelet]:
    made = FakeKubelet(server, tmp_path / "pods")
    yield made
    made.close()


def job(attempt: int = 1, **behaviour: Any) -> Job:
    return Job(RUN, attempt, {"run": RUN, "model": "m", "spec": {"behaviour": behaviour}, "work_dir": ""})


def pending(server: ApiServer, reason: str, message: str) -> None:
    """Make the pod that a kubelet cannot start."""
    found = server.all("jobs")[0]["spec"]["template"]
    state = {"waiting": {"reason": reason, "message": message}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": state}]}
    server.create("pods", {"metadata": {**found["metadata"], "name": "p"}, "spec": found["spec"], "status": status})


def test_a_job_is_launched_with_labels_by_which_people_find_it(launcher: KubernetesLauncher, server: ApiServer) -> None:
    launcher.launch(job())
    labels = {
        "modelyard.dev/model": "m",
        "modelyard.dev/run": RUN,
        "app.kubernetes.io/managed-by": "modelyard-training",
    }
    assert [found["metadata"]["name"] for found in server.all("jobs", **labels)] == [job_name(RUN, 1)]


def test_refusals_are_told_from_what_may_pass(launcher: KubernetesLauncher, server: ApiServer) -> None:
    server.refusals += [
        Refusal(403, "Forbidden", "jobs.batch is forbidden: exceeded quota: small"),
        Refusal(403, "Forbidden", 'jobs.batch is forbidden: User "training" cannot create'),
        Refusal(422, "Invalid", "spec.template.spec.containers[0].image: Required value"),
        Refusal(404, "NotFound", 'namespaces "default" not found'),
    ]
    with pytest.raises(Unavailable, match="exceeded quota"):
        launcher.launch(job())
    with pytest.raises(Denied, match="cannot create"):
        launcher.launch(job())
    with pytest.raises(Invalid, match="Required value"):
        launcher.launch(job())
    with pytest.raises(Invalid, match="the namespace default does not exist"):
        launcher.launch(job())
    assert server.all("jobs") == []


def test_a_cluster_that_is_away_is_said_and_nothing_is_guessed(launcher: KubernetesLauncher, server: ApiServer) -> None:
    launcher.launch(job())
    server.away = True
    with pytest.raises(Unavailable):
        launcher.sight(RUN, 1)
    assert "Jobs in namespace default cannot be asked for" in (launcher.check() or "")


def test_a_pod_that_cannot_start_is_ended_by_moving_the_deadline_and_never_deleted(
    launcher: KubernetesLauncher, server: ApiServer
) -> None:
    launcher.launch(job())
    pending(server, "ImagePullBackOff", "no such image")
    assert launcher.sight(RUN, 1).presence is Presence.STUCK
    launcher.terminate(RUN, 1)
    launcher.terminate(RUN, 1)
    assert server.get("jobs", job_name(RUN, 1))["spec"]["activeDeadlineSeconds"] == 1
    assert [method for method, _, _ in server.requests] == ["POST", "PATCH"]


def test_a_log_survives_the_pod_that_was_stopped(
    launcher: KubernetesLauncher, server: ApiServer, kubelet: FakeKubelet
) -> None:
    launcher.launch(job(kind="sleep", say="so far"))
    wait(lambda: launcher.log(RUN).text == "so far\n")
    launcher.terminate(RUN, 1)
    wait(lambda: launcher.sight(RUN, 1).presence is Presence.KILLED)
    assert server.all("pods") == []
    assert launcher.log(RUN).text == "so far\n"


def test_a_whole_run_ends_for_a_missing_image_with_the_reason_and_starts_once(
    yard: Any, launcher: KubernetesLauncher, server: ApiServer, kubelet: FakeKubelet
) -> None:
    kubelet.paused = True
    run = launched(yard, launcher)
    pending(server, "ErrImagePull", "trainer:1: not found")
    wait(lambda: turned(yard, run).stopping is State.FAILED)
    server.remove("pods", "p")
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    server.modify("jobs", job_name(run, 1), {"status": {"conditions": [condition]}}, sub="status")
    wait(lambda: turned(yard, run).settled)
    found = yard.run(run)
    assert (found.state, found.attempts) == (State.FAILED, 1)
    assert found.reason == "the image trainer:1 cannot be pulled (ErrImagePull): trainer:1: not found"


def test_a_whole_run_whose_job_is_deleted_by_hand_fails_and_starts_once(
    yard: Any, launcher: KubernetesLauncher, server: ApiServer, kubelet: FakeKubelet
) -> None:
    run = launched(yard, launcher, behaviour={"kind": "sleep"})
    wait(lambda: kubelet.starts(run) == 1)
    wait(lambda: turned(yard, run).state is State.RUNNING)
    kubelet.paused = True
    server.remove("jobs", job_name(run, 1))
    wait(lambda: turned(yard, run).settled)
    assert (yard.run(run).state, yard.run(run).attempts) == (State.FAILED, 1)
    assert "somebody deleted it" in yard.run(run).reason
    assert server.all("jobs") == []


def launched(yard: Any, launcher: KubernetesLauncher, **spec: Any) -> str:
    yard.observe = replace(yard.observe, launcher=launcher)
    yard.tick = replace(yard.tick, observe=yard.observe)
    known = yard.models.put("m")
    yard.models.known["m"] = replace(known, written={**known.written, **spec})
    run: str = yard.submit(Submission("m", Trigger("manual"))).run.id
    yard.tick()
    return run


def turned(yard: Any, run: str) -> Any:
    yard.tick()
    return yard.run(run)


def wait(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


CLUSTER = {"launcher": "kubernetes", "job_image": "trainer:1", "training_url": "http://training:8082"}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"job_image": None}, "set job_image"),
        ({"token_file": "token"}, "set job_token_secret"),
        ({"job_disk": "much"}, "job_disk"),
        ({"job_namespace": "Not_One"}, "job_namespace"),
    ],
)
def test_settings_that_cannot_launch_jobs_are_refused_with_what_to_set(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint):
        TrainingSettings.model_validate(CLUSTER | changes)


def test_jobs_must_know_where_to_report() -> None:
    with pytest.raises(ValidationError, match="set training_url to where pods reach this service"):
        TrainingSettings(launcher="kubernetes", job_image="trainer:1")


def test_a_service_that_is_set_to_kubernetes_launches_there(
    kubeconfig: Path, server: ApiServer, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_TRAINING_LAUNCHER", "kubernetes")
    monkeypatch.setenv("MODELYARD_TRAINING_JOB_IMAGE", "trainer:2")
    monkeypatch.setenv("MODELYARD_TRAINING_TRAINING_URL", "http://training:8082")
    monkeypatch.setenv("MODELYARD_TRAINING_JOB_LABELS", '{"team": "grid"}')
    settings = TrainingSettings(kubeconfig=kubeconfig, data_dir=tmp_path)
    launcher = build(settings, database, background=False).state.training.launcher
    launcher.launch(job())
    found = server.all("jobs", team="grid")[0]["spec"]["template"]["spec"]["containers"][0]
    assert (found["image"], "command" in found) == ("trainer:2", False)
