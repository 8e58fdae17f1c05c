"""Real Helm 3 and 4, and the charts put together once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chart.rendering import FEATURES, Helm
from tools import kube_tools
from tools.charts.build import build


@pytest.fixture(scope="session")
def helms(tools: kube_tools.KubeTools, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Helm]:
    """Both majors, each with charts that it put together itself."""
    scratch: Path = tmp_path_factory.mktemp("charts")
    return {
        name: Helm(binary, build(scratch / name, binary), tmp_path_factory.mktemp(name))
        for name, binary in (("helm3", tools.helm3), ("helm4", tools.helm4))
    }


@pytest.fixture(scope="session")
def helm(helms: Mapping[str, Helm]) -> Helm:
    """Helm 4, where the major does not matter: both render the same, which has a test of its own."""
    return helms["helm4"]


@pytest.fixture(params=[(p, f) for p in ("small", "ha", "ci") for f in FEATURES], ids="-".join)
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Every profile with every feature."""
    chosen: tuple[str, str] = request.param
    return chosen
