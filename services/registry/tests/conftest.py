from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing.databases import any_database, any_database_url, postgres_server  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))

from registry_fakes import FakeEvidence, FakeMlflow, Platform, serving


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    with serving(database, tmp_path, FakeMlflow(), FakeEvidence()) as made:
        yield made


@pytest.fixture
def any_platform(any_database: Database, tmp_path: Path) -> Iterator[Platform]:  # noqa: F811
    upgrade(any_database, "modelyard_registry")
    with serving(any_database, tmp_path, FakeMlflow(), FakeEvidence()) as made:
        yield made
