"""The Kubernetes Job that scores a file in shards, as a pure function: the same order gives the same document.

It is Indexed: pod K scores shard K of N and writes an output of its own, so that pods share nothing but the volume, and
one that is started again begins its shard anew. What trying again does not mend (wrong input, a refusal) fails its
shard at once; the pods fit the restricted level of pod security.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard_common.errors import Invalid

__all__ = ["JobOrder", "job_manifest"]

_USER = 10001  # as the images have it
_RETRIES = 3
_TTL_S = 86_400
_HOPELESS = (2, 3, 4)
"""Exit codes of the command: wrong input, not found, refused."""
_VOLUME, _TOKEN, _TMP = "data", "token", "tmp"
_TOKEN_DIR, _TMP_DIR = "/modelyard/token", "/tmp"  # noqa: S108  # of the pod, which has it to itself


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """What a Job is asked to do.

    Attributes:
        arguments: of ``modelyard``, with paths as the pods see them.
        claim: a PersistentVolumeClaim with the input, and room for the output; pods on several nodes need one that
            several nodes may write to.
        mount: where the pods see it.
        token_secret: name and key of a Secret with a token of an admin or a service; None where none is asked for.
    """

    model: str
    arguments: Sequence[str]
    shards: int
    parallelism: int
    image: str
    claim: str
    mount: str
    inference_url: str
    token_secret: tuple[str, str] | None = None


def job_manifest(order: JobOrder) -> dict[str, Any]:
    """Return the Job. Raise Invalid when it cannot be one."""
    if not order.mount.startswith("/"):
        raise Invalid("--mount: must be an absolute path")
    labels = {
        "app.kubernetes.io/name": "modelyard-predict",
        "app.kubernetes.io/component": "predict",
        "app.kubernetes.io/part-of": "modelyard",
        "app.kubernetes.io/managed-by": "modelyard-cli",
        "modelyard.dev/model": order.model,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": _name(order), "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": order.shards,
            "parallelism": min(order.parallelism, order.shards),
            "backoffLimitPerIndex": _RETRIES,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailIndex",
                        "onExitCodes": {"containerName": "predict", "operator": "In", "values": list(_HOPELESS)},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "ttlSecondsAfterFinished": _TTL_S,
            "template": {"metadata": {"labels": labels}, "spec": _pod(order)},
        },
    }


def _name(order: JobOrder) -> str:
    """Return a name that another order has not: applying the same again makes no second Job."""
    digest = hashlib.sha256("\0".join([*order.arguments, order.image, order.claim]).encode()).hexdigest()
    return f"predict-{order.model[:40].rstrip('-')}-{digest[:8]}"


def _pod(order: JobOrder) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": _VOLUME, "persistentVolumeClaim": {"claimName": order.claim}},
        {"name": _TMP, "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if order.token_secret is not None:
        secret, key = order.token_secret
        items = [{"key": key, "path": "token"}]
        volumes.append({"name": _TOKEN, "secret": {"secretName": secret, "items": items, "defaultMode": 0o440}})
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(order)],
        "volumes": volumes,
    }


def _container(order: JobOrder) -> dict[str, Any]:
    environment: Mapping[str, str] = {"MODELYARD_INFERENCE_URL": order.inference_url, "HOME": _TMP_DIR}
    mounts: list[dict[str, Any]] = [
        {"name": _VOLUME, "mountPath": order.mount},
        {"name": _TMP, "mountPath": _TMP_DIR},
    ]
    if order.token_secret is not None:
        environment = {**environment, "MODELYARD_TOKEN_FILE": f"{_TOKEN_DIR}/token"}
        mounts.append({"name": _TOKEN, "mountPath": _TOKEN_DIR, "readOnly": True})
    return {
        "name": "predict",
        "image": order.image,
        "args": list(order.arguments),
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "workingDir": _TMP_DIR,
        # Measured: a file of any size takes about 200 MB; the rest is for wide rows.
        "resources": {
            "requests": {"cpu": "250m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }
