"""Migrations and tables agree, on SQLite and on PostgreSQL."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from modelyard_common.db import Database
from modelyard_common.db.migrate import is_current, upgrade
from modelyard_training.adapters.database import Base, LockRow
from modelyard_training.adapters.store import QUEUE_LOCK


def test_the_migrated_schema_is_the_one_that_the_code_uses(any_database: Database) -> None:
    upgrade(any_database, "modelyard_training")
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert is_current(any_database, "modelyard_training")


def test_migrating_again_changes_nothing_and_the_queue_has_its_lock(any_database: Database) -> None:
    upgrade(any_database, "modelyard_training")
    upgrade(any_database, "modelyard_training")
    with any_database.read() as session:
        assert [row.name for row in session.query(LockRow)] == [QUEUE_LOCK]
