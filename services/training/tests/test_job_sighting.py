"""What is seen of a Job, for every way in which clusters start and end pods; the documents are a kubelet's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from modelyard_training.adapters.launchers.job_manifest import ENDED_BY_US, SEALED
from modelyard_training.adapters.launchers.job_sighting import sighting
from modelyard_training.domain.supervision import Presence, Sighting

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PATIENCE_S = 300.0


def stamp(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(*conditions: tuple[str, str], age_s: float = 10, **meta: Any) -> dict[str, Any]:
    found = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    return {
        "metadata": {"name": "run-1-1", "uid": "job", "creationTimestamp": stamp(age_s)} | meta,
        "status": {"conditions": found},
    }


def pod(phase: str, state: dict[str, Any] | None = None, *, status: Any = None, **meta: Any) -> dict[str, Any]:
    containers = [{"name": "trainer", "state": state}] if state is not None else []
    return {
        "metadata": {"name": "run-1-1-abcde", "uid": "pod", "creationTimestamp": stamp(9)} | meta,
        "spec": {"containers": [{"image": "x/trainer:1", "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {"phase": phase, "containerStatuses": containers} | (status or {}),
    }


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def see(found: dict[str, Any], *pods: dict[str, Any], events: dict[str, Any] | None = None) -> Sighting:
    return sighting(found, pods, lambda uid: (events or {}).get(uid, []), now=NOW, patience_s=PATIENCE_S)


UNSCHEDULABLE = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no memory"}
    ]
}
FAILED = ("Failed", "BackoffLimitExceeded")
DELETED = {"deletionTimestamp": stamp(5)}
OURS = {"annotations": {ENDED_BY_US: "training"}}


@pytest.mark.parametrize(
    ("found", "pods", "presence", "code"),
    [
        pytest.param(job(), [], Presence.ALIVE, None, id="no pod yet"),
        pytest.param(job(), [pod("Pending", waiting("ContainerCreating"))], Presence.ALIVE, None, id="pulling"),
        pytest.param(job(), [pod("Running", {"running": {}})], Presence.ALIVE, None, id="running"),
        pytest.param(job(), [pod("Running", {"running": {}}, **DELETED)], Presence.ALIVE, None, id="terminating"),
        pytest.param(job(), [pod("Succeeded", terminated(0))], Presence.ENDED, 0, id="done, Job not yet told"),
        pytest.param(job(FAILED), [pod("Failed", terminated(3))], Presence.ENDED, 3, id="failed by itself"),
        pytest.param(job(FAILED), [pod("Failed", terminated(137))], Presence.KILLED, 137, id="killed"),
        pytest.param(job(FAILED), [pod("Failed", terminated(143))], Presence.KILLED, 143, id="terminated"),
        pytest.param(job(FAILED), [], Presence.KILLED, None, id="pod deleted or node lost"),
        pytest.param(job(FAILED), [pod("Running", {"running": {}}, **DELETED)], Presence.ALIVE, None, id="leaving"),
        pytest.param(
            job(FAILED),
            [pod("Running", {"running": {}}, deletionTimestamp=stamp(200))],
            Presence.KILLED,
            None,
            id="node does not answer",
        ),
        pytest.param(job(("Complete", "")), [], Presence.ENDED, 0, id="complete, pod gone"),
        pytest.param(job(("Failed", "DeadlineExceeded")), [], Presence.OVERDUE, None, id="deadline"),
        pytest.param(job(("Failed", "DeadlineExceeded"), **OURS), [], Presence.KILLED, None, id="stopped by us"),
        pytest.param(job(labels={SEALED: "true"}), [], Presence.KILLED, None, id="sealed"),
        pytest.param(job(), [pod("Failed", status={"reason": "NodeShutdown"})], Presence.KILLED, None, id="node down"),
        pytest.param(
            job(), [pod("Failed", status={"reason": "Evicted", "message": "low"})], Presence.KILLED, None, id="evicted"
        ),
    ],
)  # fmt: skip
def test_what_is_seen(found: dict[str, Any], pods: list[Any], presence: Presence, code: int | None) -> None:
    seen = see(found, *pods)
    assert (seen.presence, seen.exit_code) == (presence, code)


def test_out_of_memory_is_called_that_with_the_limit_and_what_to_do() -> None:
    seen = see(job(FAILED), pod("Failed", terminated(137, "OOMKilled")))
    assert (seen.presence, seen.detail) == (Presence.ENDED, "OOMKilled")
    assert "ran out of memory (OOMKilled) at 2Gi: raise spec.train.resources.memory" in seen.reason


@pytest.mark.parametrize(
    ("pods", "events", "words"),
    [
        pytest.param(
            [pod("Pending", waiting("ImagePullBackOff", "not found"))],
            {},
            "the image x/trainer:1 cannot be pulled (ImagePullBackOff): not found",
            id="broken image",
        ),
        pytest.param(
            [pod("Pending", waiting("CreateContainerConfigError", 'secret "s3" not found'))],
            {},
            'cannot be started (CreateContainerConfigError): secret "s3" not found',
            id="missing Secret of the environment",
        ),
        pytest.param(
            [pod("Pending", waiting("ContainerCreating"))],
            {"pod": [{"reason": "FailedMount", "message": 'secret "token" not found'}, {"reason": "Pulled"}]},
            'cannot be started (FailedMount): secret "token" not found',
            id="missing Secret of a volume",
        ),
        pytest.param(
            [pod("Pending", status=UNSCHEDULABLE)], {}, "cannot be scheduled (Unschedulable): 0/3 nodes", id="no room"
        ),
        pytest.param(
            [],
            {"job": [{"reason": "FailedCreate", "message": "violates PodSecurity"}]},
            "the cluster makes no pod for it (FailedCreate): violates PodSecurity",
            id="refused pod",
        ),
    ],
)
def test_what_keeps_a_pod_from_starting_is_named_and_given_up_after_a_while(
    pods: list[Any], events: dict[str, Any], words: str
) -> None:
    early = see(job(age_s=PATIENCE_S - 1), *pods, events=events)
    late = see(job(age_s=PATIENCE_S), *pods, events=events)
    assert early.presence is Presence.ALIVE
    assert words in early.detail
    assert late.presence is Presence.STUCK
    assert words in late.reason


def test_a_pod_that_only_takes_long_is_waited_for() -> None:
    assert see(job(age_s=9999), pod("Pending", waiting("ContainerCreating"))).presence is Presence.ALIVE
    assert see(job(age_s=9999), pod("Running", {"running": {}})).presence is Presence.ALIVE


def test_an_image_that_has_no_valid_name_is_given_up_at_once() -> None:
    assert see(job(age_s=0), pod("Pending", waiting("InvalidImageName"))).presence is Presence.STUCK


def test_a_job_that_somebody_deletes_has_ended_also_while_it_is_still_there() -> None:
    seen = see(job(**DELETED), pod("Running", {"running": {}}))
    assert (seen.presence, seen.reason) == (
        Presence.ENDED,
        "the training job is gone: somebody deleted its Job",
    )


def test_what_a_job_used_too_much_of_is_its_own_end() -> None:
    said = 'Usage of EmptyDir volume "work" exceeds the limit "10Gi".'
    seen = see(job(FAILED), pod("Failed", status={"reason": "Evicted", "message": said}))
    assert seen.presence is Presence.ENDED
    assert said in seen.reason


def test_a_command_that_is_not_in_the_image_is_said() -> None:
    seen = see(job(FAILED), pod("Failed", terminated(128, "StartError", "no such file")))
    assert "could not be started (StartError): no such file" in seen.reason


def test_the_newest_pod_counts() -> None:
    older = pod("Failed", terminated(1), creationTimestamp=stamp(20))
    assert see(job(), older, pod("Running", {"running": {}})).presence is Presence.ALIVE
