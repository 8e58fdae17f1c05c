"""Renders charts with real Helm, each combination once a session, and finds its way in what comes out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "deploy/helm/modelyard/profiles"
GOLDENS = Path(__file__).parent / "goldens"
NAMESPACE = "ml"
SERVICES = ("registry", "training", "inference", "drift", "operator", "mlflow")
DIGEST = "sha256:" + "0123456789abcdef" * 4

Document = dict[str, Any]

_BUCKET = {"mlflow": {"artifacts": "s3://models/artifacts"}}
_FROM_INGRESS = {"clients": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]}
_GATEWAY = {"name": "public", "namespace": "gw"}
_ROUTED = {
    "networkPolicy": _FROM_INGRESS,
    "ingress": {"enabled": True, "host": "m.example.org", "className": "nginx", "tlsSecret": "m-tls"},
    "httpRoute": {
        "enabled": True,
        "parentRefs": [_GATEWAY],
        "hostnames": ["m.example.org"],
    },
}
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _beside(name: str) -> Document:
    """Return a container of whoever installs, which keeps to the restricted level."""
    requests = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    image = "registry.example.org/beside:1.0"
    return {"name": name, "image": image, "securityContext": _LOCKED, "resources": requests, "volumeMounts": mounts}


_HATCHES = {
    "initContainers": [_beside("before")],
    "extraContainers": [_beside("sidecar")],
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more", "optional": True}}],
    "extraVolumes": [{"name": "ca", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "podLabels": {"team": "grid"},
    "podAnnotations": {"example.org/note": "x"},
    "commonLabels": {"example.org/cost": "1"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "ml", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "high",
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": '{{ include "modelyard-common.fullname" . }}-more'},
            "data": {"release": "{{ .Release.Name }}"},
        }
    ],
}
_SCALED = {"autoscaling": {"enabled": True}}
_BY_DAY = {"timezone": "Europe/Berlin", "start": "0 6 * * *", "end": "0 20 * * *", "desiredReplicas": "6"}
_KEDA = {
    "autoscaling": {"enabled": True, "keda": {"enabled": True, "triggers": [{"type": "cron", "metadata": _BY_DAY}]}}
}
_OWN_ACCOUNT = {"serviceAccount": {"create": False, "name": "ours"}}
_PINNED = {"image": {"digest": DIGEST}}

FEATURES: Mapping[str, Document] = {
    "plain": {},
    "routed": {name: _ROUTED for name in SERVICES if name != "operator"},
    "hatches": dict.fromkeys(SERVICES, _HATCHES),
    "scaled": dict.fromkeys(("registry", "inference", "drift"), _SCALED),
    "keda": {"inference": _KEDA},
    "pinned": {
        "global": {"imageRegistry": "mirror.example.org/x", "imagePullSecrets": ["pull"], "storageClass": "fast"},
        **dict.fromkeys(SERVICES, _PINNED),
        "inference": _PINNED | {"runtime": _PINNED},
    },
    "isolated": {
        "inference": {"runtime": {"enabled": True, "pyfunc": True, "memoryPerVersion": 2_000_000_000}},
    },
    "traced": {
        "global": {
            "environment": "staging",
            "tracing": {"endpoint": "http://otel-collector.monitoring:4318", "ratio": 0.05},
        },
    },
    "ours": {
        "global": {"platform": "grid", "networkPolicy": {"enabled": False}},
        **{name: _OWN_ACCOUNT | {"migrations": {"enabled": False}} for name in ("registry", "training", "drift")},
        "inference": _OWN_ACCOUNT | {"test": {"model": "electricity", "argocdPostSync": True}},
        "observability": {"enabled": True},
    },
}
"""What can be switched, in combinations that do not get in each other's way; values of the umbrella."""


def profile(name: str) -> Document:
    """Return a profile's values, with the object store that `ha` asks for."""
    values: Document = yaml.safe_load((PROFILES / f"{name}.yaml").read_text())
    return merged(values, _BUCKET) if name == "ha" else values


def merged(*layers: Mapping[str, Any]) -> Document:
    """Return values as Helm merges them: maps by key, everything else replaced."""
    result: Document = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def section(values: Mapping[str, Any], chart: str) -> Document:
    """Return what of the umbrella's values belongs to one chart."""
    return merged({"global": values.get("global", {})}, values.get(chart, {}))


class Refused(Exception):
    """Helm refused; the message is what it said."""


@dataclass
class Helm:
    """One helm and a folder of charts that are ready to be rendered."""

    binary: Path
    charts: Path
    scratch: Path
    _known: dict[str, list[Document]] = field(default_factory=dict)

    def render(self, chart: str, values: Mapping[str, Any] | None = None, release: str = "modelyard") -> list[Document]:
        """Return the objects of a chart, hooks included. Raise Refused."""
        key = json.dumps([chart, values, release], sort_keys=True)
        if key not in self._known:
            self._known[key] = list(_documents(self.run("template", release, chart, values or {})))
        return self._known[key]

    def run(self, verb: str, release: str, chart: str, values: Mapping[str, Any], *more: str) -> str:
        """Return what helm prints. Raise Refused."""
        path = self.scratch / "values.json"
        path.write_text(json.dumps(values))
        command = [str(self.binary), verb, *([release] if release else []), str(self.charts / chart)]
        command += ["--values", str(path), "--namespace", NAMESPACE, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Refused(done.stdout + done.stderr)
        return done.stdout


def _documents(text: str) -> Iterator[Document]:
    for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if document is not None:
            yield document


def umbrella(helm: Helm, profile_name: str, feature: str) -> list[Document]:
    """Return the whole platform with one profile and one feature."""
    return helm.render("modelyard", merged(profile(profile_name), FEATURES[feature]))


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """Return the objects of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def name_of(document: Document) -> str:
    """Return kind and name."""
    return f"{document['kind']}/{document['metadata']['name']}"


@dataclass(frozen=True)
class PodSpec:
    """A pod that an object makes."""

    owner: Document
    labels: Mapping[str, str]
    spec: Document

    @property
    def component(self) -> str:
        """Its component."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Document]:
        """All containers, init containers too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def __str__(self) -> str:
        return name_of(self.owner)


def pods(documents: list[Document]) -> list[PodSpec]:
    """Return every pod that any of the objects makes, tests and hooks included."""
    found = []
    for document in documents:
        if document["kind"] == "Pod":
            found.append(PodSpec(document, document["metadata"]["labels"], document["spec"]))
        elif "template" in (document.get("spec") or {}):
            template = document["spec"]["template"]
            found.append(PodSpec(document, template["metadata"]["labels"], template["spec"]))
    return found


def environment(container: Document) -> dict[str, str]:
    """Return a container's environment; what comes from a Secret is ``secret:NAME/KEY``."""
    told = {}
    for entry in container.get("env", []):
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        told[entry["name"]] = f"secret:{reference['name']}/{reference['key']}" if reference else entry["value"]
    return told


def golden(documents: list[Document]) -> str:
    """Return a rendering as it is kept: one order of objects and keys, without the generated CRD."""
    kept = [document for document in documents if document["kind"] != "CustomResourceDefinition"]
    kept.sort(key=name_of)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump_all(kept, Dumper=dumper, sort_keys=True, width=110)
    return text
