"""Migrations by alembic, one lineage a service, in ``<package>/migrations``.

Two processes may start at once: a lock (a file beside SQLite, an advisory lock on PostgreSQL) lets one
migrate and makes the other wait and find nothing to do.

On a laptop a service migrates when it starts. On a cluster a job does so before new pods start, with rights that the
service need not have; the service then only insists that the schema is there. Migrations expand first and contract
a release later, so that the release before works on a newer schema: its pods may start while a new one is rolled
out, and after a rollback.
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Literal

from alembic import command
from alembic import context as alembic_context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from modelyard_common.db.engine import Database
from modelyard_common.errors import Conflict
from modelyard_common.logs import get_logger

__all__ = ["Standing", "is_current", "migrate", "prepare", "run_env", "standing", "upgrade"]

_log = get_logger(__name__)
Standing = Literal["current", "older", "newer"]
"""How the schema of a database compares with a program."""

_LOCK_TIMEOUT_S = 10
_WAIT_S = 600
"""How long a process waits for another one that migrates."""


def _config(package: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(package) / "migrations"))
    return config


def upgrade(database: Database, package: str) -> None:
    """Bring the schema of a service to its newest revision.

    Raises:
        Conflict: the database is newer than this program.
    """
    config = _config(package)
    with _exclusive(database, package), database.engine.connect() as connection:
        if not database.is_sqlite:
            connection.detach()  # it has settings of its own, and is closed afterwards
            # A migration may take long, but must not wait for a lock while everybody else waits behind it.
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
            connection.commit()
        present = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if present is not None and present not in _known(config):
            raise Conflict(f"the database is at revision {present}, which this version of {package} does not know")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def standing(database: Database, package: str) -> Standing:
    """Return how the schema compares with what this program was written for."""
    config = _config(package)
    with database.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == ScriptDirectory.from_config(config).get_current_head():
        return "current"
    return "older" if present is None or present in _known(config) else "newer"


def is_current(database: Database, package: str) -> bool:
    """Return whether the schema is at the newest revision."""
    return standing(database, package) == "current"


def prepare(database: Database, package: str, migrations: Literal["apply", "require"]) -> None:
    """Have the schema that a service needs before it serves.

    Args:
        database: of the service.
        package: of the service.
        migrations: ``apply``: bring it there now; ``require``: insist that somebody has.

    Raises:
        Conflict: ``apply`` and the database is newer than this program, or ``require`` and it is older.
    """
    if migrations == "apply":
        upgrade(database, package)
        return
    found = standing(database, package)
    if found == "older":
        raise Conflict(
            f"the database is older than this version of {package}: run `python -m {package}.migrate` first, "
            "or let the service do it with migrations=apply"
        )
    if found == "newer":
        _log.warning("schema.newer", package=package)


def migrate(database: Database, package: str) -> None:
    """Bring the schema to this program's newest revision; one that is newer already is left as it is."""
    try:
        if standing(database, package) == "newer":
            _log.warning("schema.newer", package=package)
            return
        upgrade(database, package)
        _log.info("schema.current", package=package)
    finally:
        database.close()


def _known(config: Config) -> set[str]:
    return {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}


def run_env(metadata: MetaData) -> None:
    """Run the migrations on the connection that ``upgrade`` made: the whole body of a service's ``env.py``."""
    connection: Connection = alembic_context.config.attributes["connection"]
    alembic_context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with alembic_context.begin_transaction():
        alembic_context.run_migrations()


@contextmanager
def _exclusive(database: Database, package: str) -> Iterator[None]:
    if database.is_sqlite:
        lock = Path(f"{database.url.database}.migrate-lock")
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        return
    key = zlib.crc32(package.encode())
    with database.engine.connect() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = '{_WAIT_S}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            connection.commit()
