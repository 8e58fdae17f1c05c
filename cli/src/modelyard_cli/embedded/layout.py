"""Where everything of an embedded platform is: its folder, its ports, what each process is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT_PORT_BASE", "SERVICES", "Layout", "Program"]

DEFAULT_PORT_BASE = 8080
_OFFSETS = {
    "inference": 0,
    "registry": 1,
    "training": 2,
    "drift": 3,
    "mlflow": 5,
    "prometheus": 7,
    "inference-grpc": 10,
}
SERVICES = ("registry", "training", "drift", "inference")
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the platform.

    Attributes:
        probe: what answers 200 once the process can work.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    probe: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder and the ports of one platform."""

    home: Path
    port_base: int = DEFAULT_PORT_BASE

    def port(self, name: str) -> int:
        """Return the port of a process."""
        return self.port_base + _OFFSETS[name]

    def url(self, name: str) -> str:
        """Return the address of a process."""
        return f"http://{_HOST}:{self.port(name)}"

    @property
    def lock(self) -> Path:
        """The file that the one supervisor of this folder holds."""
        return self.home / "platform.lock"

    @property
    def state(self) -> Path:
        """What the supervisor says about itself."""
        return self.home / "platform.json"

    def record(self, name: str) -> Path:
        """Where the identity of a running process is kept."""
        return self.home / "run" / f"{name}.json"

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.home / "logs" / f"{name}.log"

    def probe(self, name: str) -> str:
        """Return the path that answers 200 once a process can work."""
        return {"mlflow": "/health", "prometheus": "/-/ready"}.get(name, "/health/ready")

    def programs(self, *, prometheus: str | None) -> list[Program]:
        """Return the processes of the platform, in the order in which they are started.

        Args:
            prometheus: its binary, when there is one.
        """
        programs = [*(self._service(name) for name in SERVICES), self._mlflow()]
        return [*programs, self._prometheus(prometheus)] if prometheus else programs

    def _service(self, name: str) -> Program:
        prefix = f"MODELYARD_{name.upper()}_"
        told = {
            "HOST": _HOST,
            "PORT": str(self.port(name)),
            "AUTH": "none",
            "DATA_DIR": str(self.home / name),
            **{f"{peer.upper()}_URL": self.url(peer) for peer in (*SERVICES, "mlflow")},
        }
        if name == "inference":
            told["GRPC_PORT"] = str(self.port("inference-grpc"))
        environment = dict(os.environ) | {f"{prefix}{key}": value for key, value in told.items()}
        environment |= {"PYTHONUNBUFFERED": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = (sys.executable, "-m", f"modelyard_{name}.main")
        return Program(name, command, environment, self.port(name), self.probe(name))

    def _mlflow(self) -> Program:
        folder = self.home / "mlflow"
        command = (
            *(sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(self.port("mlflow"))),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
        )
        environment = dict(os.environ) | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        return Program("mlflow", command, environment, self.port("mlflow"), self.probe("mlflow"))

    def _prometheus(self, binary: str) -> Program:
        folder = self.home / "prometheus"
        command = (
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=7d",
            f"--web.listen-address={_HOST}:{self.port('prometheus')}",
        )
        return Program("prometheus", command, dict(os.environ), self.port("prometheus"), self.probe("prometheus"))

    def prepare(self, *, prometheus: bool) -> None:
        """Make the folders, and Prometheus's configuration."""
        for name in ("run", "logs", "mlflow/artifacts", *SERVICES):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        if prometheus:
            folder = self.home / "prometheus"
            folder.mkdir(exist_ok=True)
            (folder / "prometheus.yml").write_text(self.scrape_configuration())

    def scrape_configuration(self) -> str:
        """Return the configuration that makes Prometheus scrape every service, under the labels of the cluster."""
        jobs = "".join(
            f"  - job_name: modelyard-{name}\n    static_configs:\n"
            f"      - targets: ['{_HOST}:{self.port(name)}']\n        labels: {{namespace: local}}\n"
            for name in SERVICES
        )
        return f"global:\n  scrape_interval: 5s\nscrape_configs:\n{jobs}"
