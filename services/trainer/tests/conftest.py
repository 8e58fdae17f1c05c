from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trainer_yard import Yard, mlflow_process, yard_of


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_process(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="module")
def yard(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Real services, and runs in this process; each test takes a model name of its own.

    They end with their module: what they show as metrics is in the registry that all services of a process share.
    """
    with yard_of(tmp_path_factory.mktemp("yard"), mlflow_url) as made:
        yield made


@pytest.fixture(scope="module")
def supervised(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Real services, and runs as processes that training starts."""
    with yard_of(tmp_path_factory.mktemp("supervised"), mlflow_url, supervised=True) as made:
        yield made
