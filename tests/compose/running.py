"""docker-compose.yml started for real, and how a test asks it.

It is the file as users have it: what is replaced are names of images, by the variables that are there for that, so that
no registry is needed. Grafana alone is left out: nobody builds it here. MLflow and the object store are of the very
version that is published, PostgreSQL of the same major version; Prometheus and Alertmanager are Debian's, older ones.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_client import Modelyard
from modelyard_common.testing import free_port_base

from tests.compose.definition import FILE, ROOT, once, services
from tests.images.others import build_other
from tools.images.build import Built
from tools.images.engine import Engine, EngineError

__all__ = ["LASTING", "ONCE", "Running", "build_others", "compose_command", "running"]

LASTING = [name for name, service in services().items() if not once(service) and name != "grafana"]
ONCE = [name for name, service in services().items() if once(service)]
PORTS = ("INFERENCE", "INFERENCE_GRPC", "REGISTRY", "TRAINING", "DRIFT", "PROMETHEUS", "ALERTMANAGER")
OTHERS = {
    "POSTGRES_IMAGE": "postgres",
    "OBJECT_STORE_IMAGE": "versitygw",
    "MLFLOW_IMAGE": "mlflow",
    "PROMETHEUS_IMAGE": "prometheus",
    "ALERTMANAGER_IMAGE": "alertmanager",
}
HEALTHY_S = 120.0
UP_S = 300.0
# All processes that this user may end, the shell itself excepted: the service dies as a crashed one does, and Docker,
# which has not stopped the container, is to start it again.
KILL = ("sh", "-c", "kill -9 -1")


@dataclass(frozen=True)
class Running:
    """The platform of one compose project.

    Attributes:
        compose: `docker-compose` with file, project and variables.
        ports: by service, on 127.0.0.1.
        secrets: the folder that `make secrets` wrote.
    """

    engine: Engine
    compose: Engine
    project: str
    ports: Mapping[str, int]
    secrets: Path

    def up(self) -> None:
        """Start what is not running, and wait until all of it is healthy."""
        try:
            self.compose.run("up", "--detach", *LASTING, timeout_s=UP_S)
        except EngineError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from error
        self.await_healthy(*LASTING)

    def down(self) -> None:
        """Remove everything, data too."""
        self.compose.run("down", "--volumes", "--timeout=20")

    def url(self, service: str) -> str:
        """Return where a service is published."""
        return f"http://127.0.0.1:{self.ports[service]}"

    @contextmanager
    def client(self, principal: str) -> Iterator[Modelyard]:
        """Yield clients with the token of a principal."""
        urls = {f"{name}_url": self.url(name) for name in ("registry", "training", "inference", "drift")}
        with Modelyard(**urls, token_file=self.secrets / principal) as clients:
            yield clients

    def container(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of the container of a service."""
        return self.engine.inspect(f"{self.project}_{service}_1", "container")

    def call(self, service: str, *command: str) -> str:
        """Run a command in the container of a service."""
        return self.compose.run("exec", "-T", service, *command)

    def kill(self, service: str) -> None:
        """End a service with kill -9 and wait until another process of it has begun."""
        before = self.container(service)["RestartCount"]
        with suppress(EngineError):  # the container may go before the shell has told its end
            self.call(service, *KILL)
        self.eventually(lambda: self.container(service)["RestartCount"] > before, service)

    def await_healthy(self, *services: str) -> None:
        """Wait until health checks have passed."""
        for service in services:
            self.eventually(lambda service=service: self._health(service) == "healthy", service)

    def eventually(self, look: Callable[[], bool], *services: str) -> None:
        """Wait until a condition holds; fail with the logs of the services concerned."""
        deadline = time.monotonic() + HEALTHY_S
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(self.explain(*services))
            time.sleep(0.2)

    def explain(self, *services: str) -> str:
        """Return what a person would look at first."""
        return self.compose.run("ps", "--all") + self.compose.run("logs", "--no-color", "--tail=40", *services)

    def left(self) -> dict[str, str]:
        """Return what the engine still has of the project, by kind."""
        ours = f"--filter=label=com.docker.compose.project={self.project}"
        kinds = {"container": ("--all",), "volume": (), "network": ()}
        return {kind: self.engine.run(kind, "ls", "--quiet", *options, ours) for kind, options in kinds.items()}

    def _health(self, service: str) -> str:
        found = self.container(service)["State"]
        return str(found["Health"]["Status"]) if found["Running"] else str(found["Status"])


def build_others(engine: Engine, base: str) -> dict[str, str]:
    """Return what the variables of others' images are to be; builds them."""
    return {variable: build_other(engine, name, base=base) for variable, name in OTHERS.items()}


@contextmanager
def running(
    engine: Engine,
    command: tuple[str, ...],
    *,
    images: Mapping[str, Built],
    others: Mapping[str, str],
    secrets: Path,
    scratch: Path,
) -> Iterator[Running]:
    """Start the platform and yield it; nothing of it is left afterwards, whatever happens."""
    project = f"modelyard-test-{os.getpid()}"
    # Of this run alone: another session's build under the same name would look like an upgrade.
    ours = [f"{image.tag.rpartition(':')[0]}:{project}" for image in images.values()]
    ports = {name.lower(): port for name, port in zip(PORTS, itertools.count(free_port_base(len(PORTS))), strict=False)}
    variables = {
        **others,
        **{f"{name.upper()}_PORT": str(port) for name, port in ports.items()},
        "MODELYARD_VERSION": project,
        "SECRETS_DIR": str(secrets),
    }
    env_file = scratch / "compose.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    options = (f"--project-directory={ROOT}", f"--file={FILE}", f"--project-name={project}", f"--env-file={env_file}")
    platform = Running(engine, Engine((*command, *options), engine.env), project, ports, secrets)
    for image, name in zip(images.values(), ours, strict=True):
        engine.run("tag", image.tag, name)
    try:
        platform.up()
        yield platform
    finally:
        platform.down()
        engine.run("rmi", "--no-prune", *ours)


def compose_command() -> tuple[str, ...]:
    """Return the compose command of this machine.

    Raises:
        EngineError: there is none.
    """
    if found := shutil.which("docker-compose"):
        return (found,)
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False)
    if plugin.returncode:
        raise EngineError("there is no docker-compose; tools/install-cluster-packages.sh installs it")
    return ("docker", "compose", "--compatibility")
