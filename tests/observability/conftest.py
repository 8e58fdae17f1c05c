"""The real tools of Prometheus and Alertmanager, and a live platform that a real Prometheus watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tools.observability.stage import Prometheus, observed_demo

ROWS = 1300
"""Of the demo's stream: enough for a drift, a retraining, a rollout and a promotion."""


def _installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; tools/install-test-packages.sh does it")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return _installed("promtool")


@pytest.fixture(scope="session")
def amtool() -> str:
    return _installed("amtool")


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A slice of the demo as real processes, lived through and still serving."""
    _installed("prometheus")
    with observed_demo(tmp_path_factory.mktemp("watched"), rows=ROWS) as prometheus:
        yield prometheus
