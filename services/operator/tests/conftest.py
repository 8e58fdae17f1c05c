"""A cluster in memory that holds objects to the CustomResourceDefinition, and the platform's own services."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard_common.cluster import Cluster
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import free_port, running
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of

sys.path.insert(0, str(Path(__file__).parent))

from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build as build_registry
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build as build_training
from operator_yard import admit


@pytest.fixture
def server() -> ApiServer:
    return ApiServer(check=admit)


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Iterator[Path]:
    with running(server.app) as url:
        yield kubeconfig_of(tmp_path, url)


@pytest.fixture
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    with Cluster.connect(kubeconfig, timeout_s=5) as found:
        yield found


@pytest.fixture
def nowhere() -> str:
    """Give the URL of a service that is away."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def registry_url(tmp_path: Path, nowhere: str) -> Iterator[str]:
    """Serve a real registry, with MLflow and drift away."""
    settings = RegistrySettings(data_dir=tmp_path / "registry", mlflow_url=nowhere, drift_url=nowhere)
    settings.data_dir.mkdir()
    database = Database(settings.database("registry"))
    upgrade(database, "modelyard_registry")
    with running(build_registry(settings, database)) as url:
        yield url


@pytest.fixture
def training_url(tmp_path: Path, registry_url: str, nowhere: str) -> Iterator[str]:
    """Serve a real training service that looks for work but has no data to train on."""
    settings = TrainingSettings(data_dir=tmp_path / "training", registry_url=registry_url, drift_url=nowhere)
    settings.data_dir.mkdir()
    database = Database(settings.database("training"))
    upgrade(database, "modelyard_training")
    with running(build_training(settings, database)) as url:
        yield url
