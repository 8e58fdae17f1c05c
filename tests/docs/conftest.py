"""Real Helm and kubectl, and the charts put together once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import kube_tools
from tools.charts.build import build


@pytest.fixture(scope="session")
def charts(tools: kube_tools.KubeTools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("charts") / "charts", tools.helm4)
