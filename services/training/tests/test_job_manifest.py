"""The Job of an attempt: as its golden has it, known to Kubernetes field by field, restricted, the same each time.

``MODELYARD_WRITE_GOLDENS=1`` writes the goldens again; look at the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.errors import Invalid
from modelyard_contracts.training_v1 import JobSpec
from modelyard_training.adapters.launchers.job_manifest import (
    SEALED,
    JobTemplate,
    job_manifest,
    job_name,
    seal_manifest,
)
from modelyard_training.domain.ports import Job

GOLDENS = Path(__file__).parent / "goldens"
RUN = "run-019ab3c4d5e-1a2b3c4d"
DOCUMENT: dict[str, Any] = {
    "run": RUN,
    "model": "electricity",
    "spec": {"task": "classification"},
    "training_digest": "sha256:" + "d" * 64,
    "trigger": {"kind": "spec"},
    "training_url": "http://training:8082",
    "registry_url": "http://registry:8081",
    "mlflow_url": "http://mlflow:8085",
    "token_file": "/of/the/service",
    "timeout_s": 1800.0,
    "work_dir": "",
}
JOB = Job(RUN, 1, DOCUMENT, cpu="1500m", memory="4Gi", timeout_s=1800.0)
SMALL = JobTemplate(image="modelyard/trainer:1")
FULL = JobTemplate(
    image="registry.example.org/modelyard/trainer@sha256:" + "a" * 64,
    command=("/app/bin/python", "-m", "modelyard_trainer.main"),
    pull_policy="Always",
    pull_secrets=("registry",),
    service_account="trainer",
    token_secret="trainer-token",
    environment={"PYTHONHASHSEED": "0"},
    secrets=("s3",),
    labels={"app.kubernetes.io/instance": "demo"},
    node_selector={"pool": "training"},
    tolerations=({"key": "training", "operator": "Exists"},),
    disk="20Gi",
    ttl_s=7200,
    grace_s=2.5,
    owner={"apiVersion": "v1", "kind": "ServiceAccount", "name": "modelyard-training", "uid": "5d1c2f0e"},
)
MANIFESTS = {
    "job-small": job_manifest(JOB, SMALL),
    "job-full": job_manifest(JOB, FULL),
    "seal": seal_manifest(RUN, 1, SMALL),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_its_golden(name: str) -> None:
    path = GOLDENS / f"{name}.json"
    text = json.dumps(MANIFESTS[name], indent=2, ensure_ascii=False) + "\n"
    if "MODELYARD_WRITE_GOLDENS" in os.environ:
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_knows_every_field(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_pod_meets_the_restricted_level_and_cannot_ask_the_cluster(name: str) -> None:
    pod = MANIFESTS[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"] > 0) == (True, True)
    assert {key for volume in pod["volumes"] for key in volume} <= {"name", "downwardAPI", "emptyDir", "secret"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "ports" not in container


def test_the_cluster_never_starts_an_attempt_a_second_time() -> None:
    spec = MANIFESTS["job-full"]["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["template"]["spec"]["restartPolicy"]) == (0, 1, "Never")


def test_the_document_travels_in_the_job_and_names_the_pods_own_paths() -> None:
    template = MANIFESTS["job-full"]["spec"]["template"]
    document = JobSpec.model_validate_json(template["metadata"]["annotations"]["modelyard.dev/job"])
    mounts = {mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
    assert document.work_dir in mounts
    assert Path(document.token_file or "").parent.as_posix() in mounts
    assert document.termination_log == template["spec"]["containers"][0]["terminationMessagePath"]
    assert template["spec"]["containers"][0]["args"] == ["/modelyard/job/job.json"]


def test_a_job_sees_its_own_token_of_a_secret_that_holds_more() -> None:
    template = JobTemplate(image="modelyard/trainer:1", token_secret="modelyard-auth", token_key="trainer")

    pod = job_manifest(JOB, template)["spec"]["template"]["spec"]

    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "token"]
    assert volume["secret"]["items"] == [{"key": "trainer", "path": "token"}]


def test_without_a_secret_a_job_has_no_token() -> None:
    document = MANIFESTS["job-small"]["spec"]["template"]["metadata"]["annotations"]["modelyard.dev/job"]
    assert json.loads(document)["token_file"] is None


def test_a_finished_job_stays_longer_than_its_run_may_take() -> None:
    spec = job_manifest(Job(RUN, 1, DOCUMENT, timeout_s=1_000_000.5), SMALL)["spec"]
    assert spec["activeDeadlineSeconds"] > 1_000_000
    assert spec["ttlSecondsAfterFinished"] >= spec["activeDeadlineSeconds"]


def test_a_seal_has_the_name_of_its_attempt_and_no_pods() -> None:
    seal = MANIFESTS["seal"]
    assert seal["metadata"]["name"] == MANIFESTS["job-small"]["metadata"]["name"]
    assert (seal["spec"]["completions"], seal["spec"]["parallelism"]) == (0, 0)
    assert seal["metadata"]["labels"][SEALED] == "true"


def test_a_document_that_a_job_cannot_carry_is_refused_with_what_to_do() -> None:
    with pytest.raises(Invalid, match=r"239 KiB, a Job carries 200: name fewer features"):
        job_manifest(Job(RUN, 1, DOCUMENT | {"spec": {"x": "y" * 245_000}}), SMALL)


@given(run=st.from_regex(r"run-[0-9a-f]{11}-[0-9a-f]{8}", fullmatch=True), attempt=st.integers(1, 99))
def test_the_same_attempt_is_the_same_job_and_another_is_another(run: str, attempt: int) -> None:
    job = Job(run, attempt, DOCUMENT)
    assert job_manifest(job, FULL) == job_manifest(job, FULL)
    assert job_name(run, attempt) != job_name(run, attempt + 1)
    # A pod's name is the Job's with six characters more, and a label: at most 63.
    assert len(job_name(run, attempt)) <= 57


@pytest.mark.parametrize("run", ["../../etc", "Run-1", "run_1", "", "x" * 64])
def test_what_cannot_be_part_of_a_name_is_no_run(run: str) -> None:
    with pytest.raises(Invalid, match="not the id of a run"):
        job_name(run, 1)
