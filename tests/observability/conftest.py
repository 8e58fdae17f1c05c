"""The real tools of Prometheus and Alertmanager, and a live platform that a real Prometheus watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tools.observability.stage import Prometheus, observed_demo

ROWS = 1300
"""Of the demo's stream: enough for a drift, a retraining, a rollout and a promotion."""


def installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; tools/install-test-packages.sh does it")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return installed("promtool")


@pytest.fixture(scope="session")
def amtool() -> str:
    return installed("amtool")


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A slice of the demo as real processes, lived through and still serving."""
    installed("prometheus")
    with observed_demo(tmp_path_factory.mktemp("watched"), rows=ROWS) as prometheus:
        yield prometheus
