"""The Kubernetes Job of one attempt, as a pure function: the same attempt gives the same document.

The Job carries its whole input: the run's document is an annotation of its pod, which the pod reads as a file (the
downward API). So there is no ConfigMap to order, own and clean up, and training needs no right but to make Jobs.
Restricted pod security holds for every pod. Nothing is ever retried by the cluster: an attempt starts once, and
whether another follows is decided by whoever knows the run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_common.errors import Invalid

from modelyard_training.adapters.launchers.cores import thread_limits
from modelyard_training.domain.ports import Job

__all__ = ["ENDED_BY_US", "SEALED", "JobTemplate", "attempt_labels", "job_manifest", "job_name", "seal_manifest"]

ENDED_BY_US = "modelyard.dev/ended-by"
"""Annotation of a Job whose end training asked for: its deadline is not the run's."""
SEALED = "modelyard.dev/sealed"
"""Label of a Job without pods: the attempt has this name for good and never starts."""

_DOCUMENT = "modelyard.dev/job"
_JOB_DIR, _WORK_DIR, _TOKEN_DIR = "/modelyard/job", "/modelyard/work", "/modelyard/token"
_TERMINATION_LOG = "/dev/termination-log"
_USER = 10001  # as the images have it
_MOST_DOCUMENT_BYTES = 200 * 1024  # all annotations of an object: 256 KiB
# The supervisor ends a run at its timeout and says so; the cluster does it when there is no supervisor.
_DEADLINE_MARGIN_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTemplate:
    """What all Jobs of an installation have in common."""

    image: str
    command: tuple[str, ...] = ()
    """Empty: the image's own entry point. The path of the job's document is appended to it."""
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    service_account: str = "default"
    token_secret: str | None = None
    """A Secret with the platform's bearer token."""
    token_key: str = "token"  # noqa: S105  # a name
    """The key of that Secret; the pod sees this one alone."""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables: credentials of a store."""
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    disk: str = "10Gi"
    """The most that a job may write, in the work folder and in ``/tmp`` each."""
    ttl_s: int = 86400
    grace_s: float = 10.0
    owner: Mapping[str, Any] | None = None
    """The object with which all Jobs go."""


def job_name(run: str, attempt: int) -> str:
    """Return the name of an attempt's Job; raise Invalid when the run's id cannot be part of one."""
    name = f"{run}-{attempt}"
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", name):
        raise Invalid(f"{run[:80]!r} is not the id of a run")
    return name


def attempt_labels(run: str, attempt: int) -> dict[str, str]:
    """Return the labels by which an attempt's Job and pod are found."""
    return {"modelyard.dev/run": run, "modelyard.dev/attempt": str(attempt)}


def job_manifest(job: Job, template: JobTemplate) -> dict[str, Any]:
    """Return the Job of an attempt.

    Raises:
        Invalid: the run's document is larger than a Job can carry.
    """
    document = _document(job, template)
    labels = _labels(job.run, job.attempt, str(job.document.get("model", "")), template)
    deadline_s = math.ceil(job.timeout_s) + _DEADLINE_MARGIN_S
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(job.run, job.attempt),
            "labels": labels,
            **({"ownerReferences": [dict(template.owner)]} if template.owner else {}),
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": deadline_s,
            # A Job that vanished is taken for one that never was: it stays at least as long as the run may take.
            "ttlSecondsAfterFinished": max(template.ttl_s, deadline_s),
            "template": {
                "metadata": {"labels": labels, "annotations": {_DOCUMENT: document}},
                "spec": _pod(job, template),
            },
        },
    }


def seal_manifest(run: str, attempt: int, template: JobTemplate) -> dict[str, Any]:
    """Return a Job that takes an attempt's name, is complete at once and has no pods."""
    manifest = job_manifest(Job(run, attempt, {}), template)
    manifest["metadata"]["labels"] = manifest["metadata"]["labels"] | {SEALED: "true"}
    manifest["spec"] |= {"completions": 0, "parallelism": 0}
    return manifest


def _document(job: Job, template: JobTemplate) -> str:
    mine = {
        "work_dir": _WORK_DIR,
        "token_file": f"{_TOKEN_DIR}/token" if template.token_secret else None,
        "termination_log": _TERMINATION_LOG,
    }
    text = json.dumps({**job.document, **mine}, sort_keys=True, ensure_ascii=False)
    size = len(text.encode())
    if size > _MOST_DOCUMENT_BYTES:
        raise Invalid(
            f"the run's document has {size // 1024} KiB, a Job carries {_MOST_DOCUMENT_BYTES // 1024}: "
            "name fewer features or categories in spec.data.features"
        )
    return text


def _labels(run: str, attempt: int, model: str, template: JobTemplate) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "modelyard-trainer",
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "modelyard",
        "app.kubernetes.io/managed-by": "modelyard-training",
        **({"modelyard.dev/model": model} if model else {}),
        **template.labels,
        **attempt_labels(run, attempt),
    }


def _pod(job: Job, template: JobTemplate) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": template.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(1, math.ceil(template.grace_s)),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, template)],
        "volumes": _volumes(template),
    }
    if template.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in template.pull_secrets]
    if template.node_selector:
        pod["nodeSelector"] = dict(template.node_selector)
    if template.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in template.tolerations]
    return pod


def _container(job: Job, template: JobTemplate) -> dict[str, Any]:
    environment = {**template.environment, **thread_limits(job.cpu), "HOME": _WORK_DIR, "TMPDIR": "/tmp"}  # noqa: S108
    amounts = {"cpu": job.cpu, "memory": job.memory}
    mounts = [("job", _JOB_DIR, True), ("work", _WORK_DIR, False), ("tmp", "/tmp", False)]  # noqa: S108
    if template.token_secret:
        mounts.append(("token", _TOKEN_DIR, True))
    container: dict[str, Any] = {
        "name": "trainer",
        "image": template.image,
        "imagePullPolicy": template.pull_policy,
        "args": [f"{_JOB_DIR}/job.json"],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "resources": {"requests": amounts, "limits": amounts},
        "workingDir": _WORK_DIR,
        "terminationMessagePath": _TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})
            for name, path, read_only in mounts
        ],
    }
    if template.command:
        container["command"] = list(template.command)
    if template.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in template.secrets]
    return container


def _volumes(template: JobTemplate) -> list[dict[str, Any]]:
    document = {"path": "job.json", "fieldRef": {"fieldPath": f"metadata.annotations['{_DOCUMENT}']"}}
    volumes: list[dict[str, Any]] = [
        {"name": "job", "downwardAPI": {"items": [document]}},
        {"name": "work", "emptyDir": {"sizeLimit": template.disk}},
        {"name": "tmp", "emptyDir": {"sizeLimit": template.disk}},
    ]
    if template.token_secret:
        item = {"key": template.token_key, "path": "token"}
        volumes.append(
            {"name": "token", "secret": {"secretName": template.token_secret, "items": [item], "defaultMode": 0o440}}
        )
    return volumes
