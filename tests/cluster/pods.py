"""Objects for the tests: pods that the restricted Pod Security level lets in, around an image of ours."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard_common.auth.tokens import hash_token

from tools.images.catalog import USER

__all__ = ["TOKEN", "Object", "deployment", "job", "registry_pod", "restricted_pod", "service", "tokens_secret"]

TOKEN = "a-token-of-the-cluster-tests"
Object = dict[str, Any]


def tokens_secret() -> Object:
    """The tokens that the registry accepts."""
    line = f"test admin {hash_token(TOKEN)}\n"
    data = {"tokens": base64.b64encode(line.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokens"}, "data": data}


def registry_pod(image: str) -> Object:
    """The registry, with its own database in a folder of the pod."""
    probe = {"httpGet": {"path": "/health/ready", "port": "http"}, "periodSeconds": 1}
    container = _container(image) | {
        "env": [{"name": "MODELYARD_REGISTRY_TOKENS_FILE", "value": "/etc/modelyard/tokens"}],
        "ports": [{"name": "http", "containerPort": 8081}],
        "startupProbe": probe | {"failureThreshold": 120},
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    container["volumeMounts"] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "data", "mountPath": "/data"},
        {"name": "tokens", "mountPath": "/etc/modelyard", "readOnly": True},
    ]
    tokens = {"name": "tokens", "secret": {"secretName": "tokens"}}
    return _pod([container], volumes=[*_scratch("tmp", "data"), tokens])


def restricted_pod(image: str, **container: Any) -> Object:
    """A pod of one container, which may write to /tmp and /data."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "data", "mountPath": "/data"}]
    return _pod([_container(image) | {"volumeMounts": mounts} | container], volumes=_scratch("tmp", "data"))


def deployment(name: str, pod: Object, *, replicas: int = 1) -> Object:
    """A Deployment of a pod."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service(name: str, port: int) -> Object:
    """A Service before a Deployment of the same name."""
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def job(name: str, image: str, code: str, arguments: Sequence[str] = ()) -> Object:
    """A Job that runs Python code once in one of our images."""
    container = _container(image) | {"command": ["python", "-I", "-c", code, *arguments]}
    container["resources"] = {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
    pod = _pod([container]) | {"restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def _pod(containers: Sequence[Mapping[str, Any]], *, volumes: Sequence[Mapping[str, Any]] = ()) -> Object:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": list(volumes),
    }


def _container(image: str) -> Object:
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _scratch(*names: str) -> list[Object]:
    return [{"name": name, "emptyDir": {}} for name in names]
