from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_stage import LivePlatform, Services, small_services


@pytest.fixture(scope="session")
def one_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    platform = LivePlatform(tmp_path_factory.mktemp("platform"))
    yield platform
    platform.stop()


@pytest.fixture
def platform(one_platform: LivePlatform) -> LivePlatform:
    """The whole platform as real processes, one for all tests; up, whatever the test before did to it."""
    one_platform.ensure_up()
    return one_platform


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A real registry and a real training service in this process: enough for what is wrong with input.

    They end with their module: what they show as metrics is in the registry that all services of a process share.
    """
    with small_services(tmp_path_factory.mktemp("services")) as served:
        yield served
