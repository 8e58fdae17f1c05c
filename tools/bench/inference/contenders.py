"""The servers that are compared: how each is started with a model, and how it is asked.

Favours to the peers, so that the comparison is with their best: one process and no worker pool where that is quicker,
access logs off, answers of labels only (ours come with probabilities, ids and version).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelyard_common.testing import free_port

from bench.inference.asks import Ask, bento, binary, echo, grpc_raw, json_v2, scoring
from bench.inference.environments import OURS, PEERS
from bench.inference.names import BUNDLE, LOGGED, MODEL, Dialect

if TYPE_CHECKING:
    from bench.inference.models import Kit

__all__ = ["CONTENDERS", "Command", "Contender", "Start", "modelyard", "python_of"]

TOOLS = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """How a contender is started with one model.

    Attributes:
        asks: how it is asked in each protocol that it speaks.
        around: what has to run beside it.
    """

    command: Command
    port: int
    asks: Mapping[Dialect, Ask]
    grpc_port: int = 0
    around: Command | None = None

    def port_of(self, ask: Ask) -> int:
        """Return the port where it is asked so."""
        return self.grpc_port if ask.grpc else self.port


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to compare.

    Attributes:
        kind: ``limit`` bounds what can be had; peers are what we are compared with.
        batches: it runs requests of several callers as one batch.
        environment: whose packages it runs with; None: the project's own.
    """

    key: str
    title: str
    kind: Literal["limit", "ours", "peer"]
    start: Callable[[Kit, Path, str], Start]
    environment: str | None = None
    batches: bool = False


def modelyard(
    *,
    bare: bool = False,
    settings: Mapping[str, str] | None = None,
    main: str = "modelyard_inference.main",
    logged: float = 1,
) -> Callable[[Kit, Path, str], Start]:
    """Return how our service is started: its own entry point, with a registry and a drift that take everything.

    Args:
        bare: the bundle has no ONNX twin.
        settings: what is set otherwise than by default.
        main: the module that is run.
        logged: the share of requests whose features are logged.
    """

    def start(kit: Kit, folder: Path, python: str) -> Start:
        port, grpc_port, around = free_port(), free_port(), free_port()
        where = f"http://127.0.0.1:{around}"
        env = {
            "MODELYARD_INFERENCE_PORT": str(port),
            "MODELYARD_INFERENCE_GRPC_PORT": str(grpc_port),
            "MODELYARD_INFERENCE_REGISTRY_URL": where,
            "MODELYARD_INFERENCE_DRIFT_URL": where,
            "MODELYARD_INFERENCE_DATA_DIR": str(folder / "data"),
            "MODELYARD_INFERENCE_DRAIN_S": "0",
            "PYTHONPATH": str(TOOLS),
            **(settings or {}),
        }
        bundle = {BUNDLE: str(kit.bare if bare else kit.bundle), LOGGED: str(logged)}
        asks: dict[Dialect, Ask] = {
            "json": json_v2(),
            "binary": binary(),
            "grpc": grpc_raw(),
            "mlflow": scoring(f"/models/{MODEL}/invocations", kit.features),
        }
        beside = Command((*_uvicorn(python, "surroundings", around), "--factory"), bundle)
        return Start(Command((python, "-m", main), env), port, asks, grpc_port, beside)

    return start


def _echo(kit: Kit, folder: Path, python: str) -> Start:
    port = free_port()
    return Start(Command(_uvicorn(python, "echo", port)), port, {"json": echo()})


def _fastapi(kit: Kit, folder: Path, python: str) -> Start:
    port = free_port()
    command = Command((python, str(PEERS / "fastapi_server.py"), str(kit.joblib), str(port)))
    return Start(command, port, {"json": json_v2()})


def _litserve(kit: Kit, folder: Path, python: str) -> Start:
    port = free_port()
    command = Command((python, str(PEERS / "litserve_server.py"), str(kit.joblib), str(port)))
    return Start(command, port, {"json": json_v2()})


def _bentoml(kit: Kit, folder: Path, python: str) -> Start:
    port = free_port()
    env = {"BENCH_MODEL": str(kit.joblib), "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder / "home")}
    where = ("--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(port))
    command = Command((python, "-m", "bentoml", "serve", "bentoml_server:Bench", *where, "--quiet"), env)
    return Start(command, port, {"json": bento()})


def _kserve(kit: Kit, folder: Path, python: str) -> Start:
    port, grpc_port = free_port(), free_port()
    command = Command((python, str(PEERS / "kserve_server.py"), str(kit.joblib), str(port), str(grpc_port)))
    return Start(command, port, {"json": json_v2(), "binary": binary(), "grpc": grpc_raw()}, grpc_port)


def _mlflow(kit: Kit, folder: Path, python: str) -> Start:
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port))
    argv = (python, "-m", "mlflow", "models", "serve", "--model-uri", str(kit.mlflow), "--env-manager", "local", *where)
    # It starts uvicorn by name.
    env = {"PATH": f"{Path(python).parent}:/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
    ask = scoring("/invocations", kit.features)
    # It has no other protocol, so its own stands in where the others speak V2.
    return Start(Command(argv, env), port, {"json": ask, "mlflow": ask})


def _mlserver(batches: bool) -> Callable[[Kit, Path, str], Start]:
    def start(kit: Kit, folder: Path, python: str) -> Start:
        port, grpc_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": grpc_port,
            "metrics_port": free_port(),
            "parallel_workers": 0,
        }
        model = {
            "name": MODEL,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(kit.joblib)},
            **({"max_batch_size": 64, "max_batch_time": 0.002} if batches else {}),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        command = Command((python, "-c", "from mlserver.cli import main; main()", "start", str(folder)))
        return Start(command, port, {"json": json_v2(), "grpc": grpc_raw()}, grpc_port)

    return start


def _uvicorn(python: str, app: str, port: int) -> tuple[str, ...]:
    where = ("--app-dir", str(TOOLS), "--host", "127.0.0.1", "--port", str(port))
    quiet = ("--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "1")
    return (python, "-m", "uvicorn", f"bench.inference.{app}:app", *where, *quiet)


CONTENDERS: tuple[Contender, ...] = (
    Contender("echo", "empty ASGI echo", "limit", _echo),
    Contender("modelyard", "Modelyard", "ours", modelyard(), OURS, batches=True),
    Contender("modelyard-bare", "Modelyard, no ONNX twin", "ours", modelyard(bare=True), batches=True),
    Contender("fastapi", "FastAPI + scikit-learn", "peer", _fastapi),
    Contender("mlflow", "mlflow models serve", "peer", _mlflow, "mlflow"),
    Contender("mlserver", "MLServer", "peer", _mlserver(False), "mlserver"),
    Contender("mlserver-batching", "MLServer, batching", "peer", _mlserver(True), "mlserver", batches=True),
    Contender("bentoml", "BentoML, batching", "peer", _bentoml, "bentoml", batches=True),
    Contender("kserve", "KServe ModelServer", "peer", _kserve, "kserve"),
    Contender("litserve", "LitServe, batching", "peer", _litserve, "litserve", batches=True),
)


def python_of(contender: Contender, interpreter: Callable[[str], Path]) -> str:
    """Return the interpreter that a contender runs with. Raises what ``interpreter`` raises."""
    return sys.executable if contender.environment is None else str(interpreter(contender.environment))
