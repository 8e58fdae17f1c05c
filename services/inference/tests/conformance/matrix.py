"""The clients, the server that they meet, and the table of what became of it (``docs/conformance.md``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
from inference_fakes import a_platform, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.testing import free_port_base

__all__ = ["CLIENTS", "DOCUMENT", "Client", "NotInstalled", "Stage", "a_stage", "calls_of", "rendered"]

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
DOCUMENT = ROOT / "docs" / "conformance.md"
_NOT_OFFERED = "not offered "

Results = Mapping[str, str | None]
"""Sentence of a call to what went wrong, or None."""


class NotInstalled(Exception):
    """The environment of a client cannot be made here."""


@dataclass(frozen=True)
class Client:
    """A client as people install it.

    Attributes:
        script: in ``clients/``.
        requirements: an environment of its own, from this file; None where our own has the client.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    requirements: str | None = None
    package: str | None = None

    @property
    def title(self) -> str:
        """The client with its version, so that the page is written again when that moves."""
        if self.package is None:
            return self.name
        if self.requirements is None:
            return f"{self.name} {version(self.package)}"
        pins = dict(line.split("==") for line in (HERE / self.requirements).read_text().splitlines())
        return f"{self.name} {pins[self.package]}"


CLIENTS = {
    "triton-http": Client("tritonclient.http", "triton_http.py", package="tritonclient"),
    "triton-grpc": Client("tritonclient.grpc", "triton_grpc.py", package="tritonclient"),
    "kserve-rest": Client("kserve.InferenceRESTClient", "kserve_clients.py", ("rest",), "kserve.txt", "kserve"),
    "kserve-grpc": Client("kserve.InferenceGRPCClient", "kserve_clients.py", ("grpc",), "kserve.txt", "kserve"),
    "mlserver": Client("mlserver", "mlserver_clients.py", (), "mlserver.txt", "mlserver"),
    "mlflow": Client("MLflow's ScoringServerClient", "mlflow_scoring.py", package="mlflow"),
    "curl": Client("curl", "plain_curl.py"),
}


@dataclass(frozen=True)
class Stage:
    """Where the server is: host and port."""

    http: str
    grpc: str


@contextmanager
def a_stage(folder: Path, bundle: Packed) -> Iterator[Stage]:
    """Serve the model ``power`` by the real process."""
    base = free_port_base(2)
    stage = Stage(f"127.0.0.1:{base}", f"127.0.0.1:{base + 1}")
    with a_platform(folder / "data") as platform:
        platform.registry.add(bundle)
        platform.registry.route("power", str(bundle.digest))
        told = {
            "PORT": stage.http.rpartition(":")[2],
            "GRPC_PORT": stage.grpc.rpartition(":")[2],
            "REGISTRY_URL": platform.registry_url,
            "DRIFT_URL": platform.drift_url,
            "DATA_DIR": str(platform.data_dir),
            "DRAIN_S": "0",
        }
        environment = os.environ | {f"MODELYARD_INFERENCE_{name}": value for name, value in told.items()}
        server = subprocess.Popen(
            [sys.executable, "-m", "modelyard_inference.main"], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: _is_ready(stage), 60)
            yield stage
        finally:
            server.terminate()
            server.wait(30)


def calls_of(client: Client, stage: Stage) -> Results:
    """Return how each call of a client went.

    Raises:
        NotInstalled: its environment cannot be made here.
    """
    if client.package is None and shutil.which(client.name) is None:
        raise NotInstalled(f"there is no {client.name} on this machine")
    python = sys.executable if client.requirements is None else str(_interpreter(HERE / client.requirements))
    command = [python, str(HERE / "clients" / client.script), stage.http, stage.grpc, *client.arguments]
    # The server is on loopback, where no proxy leads.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110, env=environment)
    if done.returncode != 0:
        raise AssertionError(f"{client.title} did not run:\n{done.stderr[-2000:]}")
    results: Results = json.loads(done.stdout.splitlines()[-1])
    return results


def rendered(results: Mapping[str, Results]) -> str:
    """Return the document."""
    lines = [
        "# Conformance",
        "",
        "What real clients see of the real inference process. This page is written by the test that makes these calls"
        " (`python services/inference/tests/conformance`), and the test fails when it says something else.",
        "",
        "| client | calls | pass | not offered |",
        "|---|---:|---:|---|",
    ]
    for name, calls in results.items():
        absent = [sentence.removeprefix(_NOT_OFFERED) for sentence in calls if sentence.startswith(_NOT_OFFERED)]
        asked = [outcome for sentence, outcome in calls.items() if not sentence.startswith(_NOT_OFFERED)]
        passed = sum(outcome is None for outcome in asked)
        lines.append(f"| {CLIENTS[name].title} | {len(asked)} | {passed} | {', '.join(absent) or '—'} |")
    lines += ["", "What is not offered is refused with an error that the client reads."]
    for name, calls in results.items():
        lines += ["", f"## {CLIENTS[name].title}", "", "| call | pass |", "|---|---|"]
        lines += [f"| {sentence} | {_mark(sentence, outcome)} |" for sentence, outcome in calls.items()]
    return "\n".join(lines) + "\n"


def _mark(sentence: str, outcome: str | None) -> str:
    if outcome is not None:
        return "**no**"
    return "refused clearly" if sentence.startswith(_NOT_OFFERED) else "yes"


def _interpreter(requirements: Path) -> Path:
    """Return the interpreter of an environment with these packages, made once and kept."""
    folder = ROOT / ".tools" / "clients" / requirements.stem
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    wanted = requirements.read_text()
    if mark.exists() and mark.read_text() == wanted:
        return python
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements)],
        ):
            try:
                done = subprocess.run(command, check=False, stdout=log, stderr=log, timeout=300)
            except (OSError, subprocess.TimeoutExpired) as exc:
                raise NotInstalled(f"{command[0]}: {exc}") from exc
            if done.returncode != 0:
                log.seek(0)
                raise NotInstalled(log.read().decode(errors="replace")[-1000:])
    mark.write_text(wanted)
    return python


def _is_ready(stage: Stage) -> bool:
    try:
        return httpx.get(f"http://{stage.http}/v2/models/power/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
