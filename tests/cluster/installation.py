"""The whole platform in a namespace, as its README says to install it: secrets, a PostgreSQL, the umbrella chart.

PostgreSQL is the one thing that the charts expect and do not bring. Volumes too, on a cluster without a default
StorageClass: there the node's own folder lends some.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_client import Modelyard

from tests.cluster.pods import Object, deployment, restricted_pod, service
from tools.charts.secret import token_secret
from tools.cluster.access import Cluster, CommandError

__all__ = ["RELEASE", "Installation", "database_objects", "image_values", "volumes"]

RELEASE = "modelyard"
OWNERS = ("registry", "training", "drift", "mlflow")
PORTS = {"registry": 8081, "training": 8082, "inference": 8080, "drift": 8083}
PROFILE = Path("profiles") / "ci.yaml"
INSTALL_TIMEOUT = "400s"


@dataclass(frozen=True)
class Installation:
    """A release of the umbrella.

    Attributes:
        charts: the folder with the built charts.
        values: a file with the values of this cluster; the profile comes before it.
        tokens: principal to token.
    """

    cluster: Cluster
    namespace: str
    charts: Path
    values: Path
    tokens: Mapping[str, str]
    scratch: Path

    def install(self) -> None:
        """Install and wait until every pod is ready."""
        # The definition stays when a release goes, as it should, and another test may have put it there.
        self._helm("install", f"--namespace={self.namespace}", "--take-ownership", *self._chart())

    def upgrade(self, *, timeout: str = INSTALL_TIMEOUT, **values: Any) -> None:
        """Upgrade with more values (`inference.replicas=2`) and wait; AssertionError says what was seen in vain."""
        self._helm("upgrade", f"--namespace={self.namespace}", *self._chart(timeout), *_settings(values))

    def uninstall(self) -> None:
        """Uninstall and wait until the pods are gone."""
        self._helm("uninstall", RELEASE, f"--namespace={self.namespace}", "--wait", f"--timeout={INSTALL_TIMEOUT}")

    def let_go(self) -> None:
        """Take the finalizers off the models that a failed test left: nobody would when the operator has gone."""
        # Where the install failed the kind may not even be known.
        with suppress(CommandError):
            for name in self.kubectl("get", "mm", "--output=name").split():
                self.kubectl("patch", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')

    def helm(self, *arguments: str) -> str:
        """Run another command of Helm on the release's namespace."""
        return self._helm(*arguments, f"--namespace={self.namespace}")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl on the release's namespace."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, **options)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object of the release's namespace, or a list of them."""
        return self.cluster.get(f"--namespace={self.namespace}", *arguments)

    @contextmanager
    def client(self, principal: str = "admin") -> Iterator[Modelyard]:
        """Yield clients of the platform, through the API server."""
        token_file = self.scratch / f"{principal}.token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.tokens[principal])
        with ExitStack() as open_doors:
            urls = {
                f"{name}_url": open_doors.enter_context(
                    self.cluster.forward(self.namespace, f"service/{RELEASE}-{name}", port)
                )
                for name, port in PORTS.items()
            }
            with Modelyard(**urls, token_file=token_file) as platform:
                yield platform

    @contextmanager
    def replicas(self, name: str) -> Iterator[list[str]]:
        """Yield the URL of each ready pod of a service."""
        pods = self.get("pods", f"--selector=app.kubernetes.io/name={name}")["items"]
        with ExitStack() as doors:
            yield [
                doors.enter_context(self.cluster.forward(self.namespace, f"pod/{pod['metadata']['name']}", PORTS[name]))
                for pod in pods
            ]

    def eventually(self, look: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until a condition holds; fail with what a person would look at first."""
        self.cluster.eventually(look, timeout_s=timeout_s, explain=lambda: self.cluster.explain(self.namespace))

    def _chart(self, timeout: str = INSTALL_TIMEOUT) -> tuple[str, ...]:
        chart = self.charts / "modelyard"
        waits = ("--wait", f"--timeout={timeout}")
        return RELEASE, str(chart), f"--values={chart / PROFILE}", f"--values={self.values}", *waits

    def _helm(self, *arguments: str) -> str:
        try:
            return self.cluster.helm(*arguments)
        except CommandError as error:
            raise AssertionError(f"{error}\n{self.cluster.explain(self.namespace)}") from error


def _settings(values: Mapping[str, Any]) -> list[str]:
    return [f"--set-json={path}={json.dumps(value)}" for path, value in values.items()]


def image_values(image: Callable[[str], str]) -> dict[str, Any]:
    """Return the values that name the images of a cluster."""

    def named(package: str) -> dict[str, str]:
        repository, _, tag = image(package).rpartition(":")
        return {"registry": "", "repository": repository, "tag": tag}

    services = ("registry", "training", "inference", "drift", "operator", "mlflow")
    values: dict[str, Any] = {name: {"image": named(name)} for name in services}
    values["training"]["jobs"] = {"image": named("trainer")}
    # Whoever asks models from inside the namespace, where network policies are enforced.
    values["inference"]["networkPolicy"] = {
        "clients": [
            {"podSelector": {"matchLabels": {"app": "load"}}},
            {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "modelyard-predict"}}},
        ]
    }
    return values


def secrets_of(namespace: str) -> tuple[dict[str, str], list[Object]]:
    """Return new tokens by principal, and the Secrets that the charts and PostgreSQL expect."""
    auth: Any = token_secret(f"{RELEASE}-auth", namespace)
    passwords = {owner: secrets.token_hex(16) for owner in OWNERS}
    urls = {owner: f"postgresql://{owner}:{word}@postgresql:5432/{owner}" for owner, word in passwords.items()}
    # Single-user mode takes one statement a line.
    lines = [
        line
        for owner, word in passwords.items()
        for line in (f"CREATE ROLE {owner} LOGIN PASSWORD '{word}'", f"CREATE DATABASE {owner} OWNER {owner}")
    ]
    init = {"password": secrets.token_hex(16), "init.sql": "".join(f"{line};\n" for line in lines)}
    made = [auth, _secret(f"{RELEASE}-database", urls), _secret("postgresql", init)]
    return {name: word for name, word in auth["stringData"].items() if name != "tokens"}, made


def database_objects(image: str) -> list[Object]:
    """Return a PostgreSQL that makes a role and a database for each service; its data goes with its pod."""
    pod = restricted_pod(
        image,
        ports=[{"name": "http", "containerPort": 5432}],
        readinessProbe={"exec": {"command": ["pg_isready", "--host=/tmp"]}, "periodSeconds": 1, "timeoutSeconds": 5},
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}},
    )
    pod["volumes"] += [{"name": "init", "secret": {"secretName": "postgresql", "defaultMode": 0o440}}]
    pod["containers"][0]["volumeMounts"] += [{"name": "init", "mountPath": "/init", "readOnly": True}]
    return [deployment("postgresql", pod), service("postgresql", 5432)]


def volumes(folder: Path, namespace: str, sizes: Mapping[str, str]) -> list[Object]:
    """Return volumes in a folder of the node, for a cluster that makes none by itself; pods may write to them."""
    made = []
    for claim, size in sizes.items():
        path = folder / f"{namespace}-{claim}"
        path.mkdir(parents=True)
        # The kubelet gives no group to a folder of its node.
        path.chmod(0o777)
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": claim},
        }
        metadata = {"name": f"{namespace}-{claim}"[:253]}
        made.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})
    return made


def _secret(name: str, values: Mapping[str, str]) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
