"""Migrations by alembic, one lineage a service, in ``<package>/migrations``.

Two processes may start at once: a lock (a file beside SQLite, an advisory lock on PostgreSQL) lets one
migrate and makes the other wait and find nothing to do.
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic import context as alembic_context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from modelyard_common.db.engine import Database
from modelyard_common.errors import Conflict

__all__ = ["is_current", "run_env", "upgrade"]


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
        known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
        present = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if present is not None and present not in known:
            raise Conflict(f"the database is at revision {present}, which this version of {package} does not know")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def is_current(database: Database, package: str) -> bool:
    """Return whether the schema is at the newest revision."""
    head = ScriptDirectory.from_config(_config(package)).get_current_head()
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


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
