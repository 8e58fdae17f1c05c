"""The loop in a cluster: a fresh install, `kubectl apply`, a first version, the stream, a retrain, a promotion."""

from __future__ import annotations

from typing import Any

import pytest
from modelyard_cli.demo.holding import Holder
from modelyard_cli.demo.replayer import Replayer
from modelyard_cli.demo.stream import Stream
from modelyard_client import Modelyard

from tests.cluster.installation import Installation
from tests.cluster.managed_model import LOOK_S, MODEL, SEEN_S, apply_manifest, columns, told_as_it_is, trainer_jobs

# The first test waits for images and the install; the limit is for the tests alone.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

FIRST_VERSION_S = 300.0


def test_every_pod_of_a_fresh_install_is_ready_and_helm_test_is_green(platform: Installation) -> None:
    pods = platform.get("pods")["items"]
    said = platform.helm("test", "modelyard", "--logs")

    ready = {pod["metadata"]["name"]: _condition(pod, "Ready") for pod in pods}
    assert set(ready.values()) == {"True"}, ready
    assert {name.split("-")[1] for name in ready if name.startswith("modelyard-")} == {
        *("registry", "training", "inference", "drift", "operator", "mlflow")
    }
    assert "no model is served yet; the API took the token and answered" in said


def test_an_applied_manifest_is_trained_in_a_job_judged_and_served(
    platform: Installation, client: Modelyard, stream: Stream
) -> None:
    stages: list[tuple[str, str, str]] = []

    def is_served() -> bool:
        shown = columns(platform)
        stages.append((shown["READY"], shown["CHAMPION"], shown["NEXT"]))
        return client.inference.ready(MODEL)

    apply_manifest(platform, client, stream)

    platform.eventually(is_served, timeout_s=FIRST_VERSION_S)
    platform.eventually(lambda: columns(platform)["READY"] == "True", timeout_s=SEEN_S)
    served = columns(platform)

    (run,) = client.training.runs(MODEL)
    # The run's report comes before its process has ended.
    platform.eventually(
        lambda: [job["status"].get("succeeded") for job in trainer_jobs(platform)] == [1], timeout_s=SEEN_S
    )
    (job,) = trainer_jobs(platform)
    told = any(stage[:2] == ("False", "") and stage[2].startswith(f"run {run.id} is ") for stage in stages)
    assert run.ended is not None
    # The operator looks every few seconds: a run that is over by then is seen by its version.
    assert told or (run.ended - run.created).total_seconds() < 2 * LOOK_S, stages
    assert (served["CHAMPION"], served["CANDIDATE"], served["STEP"], served["NEXT"]) == ("1", "", "", "")
    assert run.state == "succeeded"
    assert job["metadata"]["labels"]["modelyard.dev/run"] == run.id
    assert "answered: electricity" in platform.helm("test", "modelyard", "--logs")


def test_the_loop_closes_in_the_cluster_and_kubectl_get_tells_the_truth_at_each_block(
    platform: Installation, client: Modelyard, stream: Stream
) -> None:
    announced: set[str] = set()

    def look() -> None:
        announced.add(columns(platform)["NEXT"])

    hold = Holder(client, MODEL, look)
    stages: list[tuple[str, ...]] = []

    def seen(_: int) -> None:
        stage = told_as_it_is(platform, client)
        if stage not in stages[-1:]:
            stages.append(stage)

    with platform.replicas("inference") as urls:
        token = platform.tokens["client"]
        replayer = Replayer(stream, urls, client.drift, hold, lambda: None, seen, token=token)
        replayer.run()

    runs = client.training.runs(MODEL)
    logged = client.drift.prediction_ids(MODEL)
    assert [answer.failure for answer in replayer.answers if answer.failure] == []
    assert {f"{answer.prediction_id}/0" for answer in replayer.answers} <= set(logged)
    assert [run.trigger.kind for run in runs[-2:]] == ["drift", "spec"]
    assert {run.state for run in runs} == {"succeeded"}
    retrained = runs[-2]
    assert retrained.ended is not None
    # As above: the operator looks every few seconds.
    is_told = any(word.startswith(f"run {retrained.id} is running") for word in announced)
    assert is_told or (retrained.ended - retrained.created).total_seconds() < 2 * LOOK_S, announced
    without_drift = [stage[:-1] for stage in stages]
    assert without_drift[0] == ("True", "1", "", "")
    assert ("True", "1", "2", "1/2 shadow") in without_drift
    assert ("True", "1", "2", "2/2 25%") in without_drift
    assert ("True", "2", "", "") in without_drift
    assert {"high", "critical"} & {severity for *_, severity in stages}
    assert len({answer.version for answer in replayer.answers}) == 2


def _condition(found: dict[str, Any], kind: str) -> str:
    return next(str(one["status"]) for one in found["status"]["conditions"] if one["type"] == kind)
