"""Secrets as `make secrets` makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard_common.testing.databases import *  # noqa: F403

from tools.compose.secrets import ensure_secrets


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("compose") / "secrets"
    assert ensure_secrets(folder)
    return folder
