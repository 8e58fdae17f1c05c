"""The database door, on SQLite and on PostgreSQL: rights, commits, times, migrations of two at once, idempotency."""

from __future__ import annotations

import multiprocessing
import secrets
import sqlite3
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from modelyard_common.db import Database, JsonColumn, UtcDateTime, WriteSession
from modelyard_common.db.idempotency import IdempotencyKeys, recall, remember, request_digest
from modelyard_common.db.migrate import is_current, migrate, prepare, standing, upgrade
from modelyard_common.errors import Conflict, Unavailable
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    body: Mapped[Any] = mapped_column(JsonColumn, nullable=True)


class Key(IdempotencyKeys, Base):
    __tablename__ = "idempotency_keys"


@pytest.fixture
def database(any_database: Database) -> Database:
    Base.metadata.create_all(any_database.engine)
    return any_database


def names(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(session.scalars(text("SELECT name FROM things")))


def test_what_was_written_is_there_after_the_block(database: Database) -> None:
    with database.write() as session:
        session.add(Thing(name="a"))

    assert names(database) == ["a"]


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as session:
        session.add(Thing(name="a"))
        session.flush()
        raise KeyError

    assert names(database) == []


def test_what_a_reader_writes_is_rolled_back(database: Database) -> None:
    with database.read() as session:
        session.add(Thing(name="a"))
        session.flush()

    assert names(database) == []


def test_a_broken_constraint_is_the_databases_own_error(database: Database) -> None:
    with database.write() as session:
        session.add(Thing(name="a"))

    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Thing(name="a"))


def test_a_time_goes_in_with_any_offset_and_comes_out_in_utc(database: Database) -> None:
    with database.write() as session:
        session.add(Thing(name="a", at=NOW.astimezone(timezone(timedelta(hours=10)))))
        session.add(Thing(name="b", at=None))

    with database.read() as session:
        found = session.get(Thing, "a")
        assert found is not None
        assert found.at == NOW
        assert found.at.tzinfo is UTC
        nothing = session.get(Thing, "b")
        assert nothing is not None
        assert nothing.at is None


def test_times_are_ordered_as_moments(database: Database) -> None:
    later = NOW + timedelta(microseconds=1)
    with database.write() as session:
        session.add(Thing(name="b", at=later.astimezone(timezone(timedelta(hours=-11)))))
        session.add(Thing(name="a", at=NOW.astimezone(timezone(timedelta(hours=14)))))

    with database.read() as session:
        assert [thing.name for thing in session.query(Thing).order_by(Thing.at)] == ["a", "b"]


def test_a_time_without_offset_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="needs an offset"), database.write() as session:
        session.add(Thing(name="a", at=datetime(2026, 1, 1)))


def test_a_document_comes_back_as_it_was(database: Database) -> None:
    body = {"ü": [1, 2.5, None, True, {"deep": "text"}]}
    with database.write() as session:
        session.add(Thing(name="a", body=body))

    with database.read() as session:
        found = session.get(Thing, "a")
        assert found is not None
        assert found.body == body


def test_writers_queue_and_lose_nothing(database: Database) -> None:
    with database.write() as session:
        session.add(Thing(name="counter", body={"n": 0}))

    def add() -> None:
        for _ in range(10):
            with database.write() as session:
                thing = session.get(Thing, "counter", with_for_update=True)
                assert thing is not None
                thing.body = {"n": thing.body["n"] + 1}

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.read() as session:
        counter = session.get(Thing, "counter")
        assert counter is not None
        assert counter.body == {"n": 40}


def test_a_healthy_database_has_nothing_to_say(any_database: Database) -> None:
    assert any_database.check() is None
    any_database.require()


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    database = Database(f"sqlite:///{folder}/x.db")
    folder.rmdir()

    assert "does not answer" in (database.check() or "")
    with pytest.raises(Unavailable):
        database.require()
    with pytest.raises(Unavailable), database.write() as session:
        session.execute(text("SELECT 1"))
    with pytest.raises(Unavailable), database.read() as session:
        session.execute(text("SELECT 1"))
    database.close()


def test_a_mistake_in_a_statement_is_not_called_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(OperationalError, match="no such table"), database.read() as session:
        session.execute(text("SELECT * FROM nowhere"))
    database.close()


def test_sqlite_keeps_what_was_committed_and_lets_readers_read(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/deep/folder/x.db")
    Base.metadata.create_all(database.engine)
    with database.engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    with database.write() as session:
        session.add(Thing(name="a"))
        session.flush()
        assert names(database) == []
    database.close()

    assert found == {"journal_mode": "wal", "synchronous": 2}


def test_an_sqlite_writer_takes_its_place_before_it_reads(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    Base.metadata.create_all(database.engine)
    with database.write() as session:
        session.execute(text("SELECT 1"))
        other = sqlite3.connect(tmp_path / "x.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    database.close()


# Idempotency


def once(session: WriteSession, key: str, body: object) -> dict[str, Any]:
    digest = request_digest("thing.create", body)
    known = recall(session, Key, key, digest)
    if known is not None:
        return known
    session.add(Thing(name=secrets.token_hex(8)))
    response = {"made": session.query(Thing).count()}
    remember(session, Key, key=key, digest=digest, response=response, now=NOW)
    return response


def test_asked_twice_with_one_key_is_done_once_and_answered_the_same(database: Database) -> None:
    answers = []
    for _ in range(2):
        with database.write() as session:
            answers.append(once(session, "k", {"a": 1}))

    assert answers[0] == answers[1]
    assert len(names(database)) == 1


def test_a_key_used_for_something_else_is_a_conflict(database: Database) -> None:
    with database.write() as session:
        once(session, "k", {"a": 1})

    with pytest.raises(Conflict, match="used for another request"), database.write() as session:
        once(session, "k", {"a": 2})


def test_a_request_that_failed_leaves_its_key_free(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as session:
        once(session, "k", {})
        raise KeyError

    with database.write() as session:
        once(session, "k", {})
    assert len(names(database)) == 1


def test_two_at_once_with_one_key_are_done_once(database: Database) -> None:
    barrier, outcomes = threading.Barrier(2), []

    def ask() -> None:
        barrier.wait(10)
        try:
            with database.write() as session:
                outcomes.append(once(session, "k", {}))
        except Conflict as exc:
            outcomes.append({"conflict": exc.message})

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(names(database)) == 1
    assert {"made": 1} in outcomes
    assert all(outcome == {"made": 1} or "in progress" in outcome["conflict"] for outcome in outcomes)


def test_the_digest_of_a_request_does_not_depend_on_the_order_of_its_fields() -> None:
    assert request_digest("x", {"a": 1, "b": 2}) == request_digest("x", {"b": 2, "a": 1})
    assert request_digest("x", {"a": 1}) != request_digest("y", {"a": 1})


# Migrations

FIRST = """
    import time
    import sqlalchemy as sa
    from alembic import op
    revision, down_revision = "0001", None
    def upgrade():
        op.create_table("first", sa.Column("id", sa.Integer, primary_key=True))
        time.sleep(0.3)
"""
SECOND = """
    import sqlalchemy as sa
    from alembic import op
    revision, down_revision = "0002", "0001"
    def upgrade():
        op.add_column("first", sa.Column("name", sa.Text))
        op.execute("INSERT INTO first (id, name) VALUES (1, 'once')")
"""
BROKEN = """
    from alembic import op
    revision, down_revision = "0003", "0002"
    def upgrade():
        op.execute("INSERT INTO first (id, name) VALUES (2, 'half')")
        op.execute("INSERT INTO nowhere VALUES (1)")
"""


class Package:
    """A package with migrations, made for one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.versions = folder / name / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
        (folder / name / "migrations" / "env.py").write_text(
            "from modelyard_common.db.migrate import run_env\nfrom sqlalchemy import MetaData\nrun_env(MetaData())\n"
        )
        self.add("0001", FIRST)

    def add(self, number: str, source: str) -> None:
        (self.versions / f"{number}.py").write_text(textwrap.dedent(source))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"migrated_{abs(hash(request.node.name))}"
    yield Package(tmp_path, name)
    sys.modules.pop(name, None)


def test_a_schema_is_brought_to_its_newest_revision_and_stays(any_database: Database, package: Package) -> None:
    assert not is_current(any_database, package.name)
    upgrade(any_database, package.name)
    assert is_current(any_database, package.name)

    package.add("0002", SECOND)
    assert not is_current(any_database, package.name)
    upgrade(any_database, package.name)
    upgrade(any_database, package.name)

    assert is_current(any_database, package.name)
    with any_database.read() as session:
        assert list(session.execute(text("SELECT id, name FROM first"))) == [(1, "once")]


def test_a_newer_database_is_refused_and_left_alone(any_database: Database, package: Package) -> None:
    package.add("0002", SECOND)
    upgrade(any_database, package.name)
    (package.versions / "0002.py").unlink()

    with pytest.raises(Conflict, match="revision 0002, which this version of"):
        upgrade(any_database, package.name)

    assert not is_current(any_database, package.name)
    with any_database.read() as session:
        assert session.execute(text("SELECT count(*) FROM first")).scalar_one() == 1


def test_a_service_that_may_not_migrate_starts_on_its_own_schema_and_on_a_newer_one(
    any_database: Database, package: Package
) -> None:
    upgrade(any_database, package.name)
    prepare(any_database, package.name, "require")
    assert standing(any_database, package.name) == "current"

    package.add("0002", SECOND)
    upgrade(any_database, package.name)
    (package.versions / "0002.py").unlink()
    prepare(any_database, package.name, "require")

    assert standing(any_database, package.name) == "newer"


def test_a_service_that_may_not_migrate_refuses_an_older_schema(any_database: Database, package: Package) -> None:
    with pytest.raises(Conflict, match=f"python -m {package.name}.migrate"):
        prepare(any_database, package.name, "require")
    upgrade(any_database, package.name)
    package.add("0002", SECOND)

    with pytest.raises(Conflict, match="the database is older than this version"):
        prepare(any_database, package.name, "require")

    assert standing(any_database, package.name) == "older"


def test_a_job_of_the_release_before_leaves_a_newer_schema_alone(any_database: Database, package: Package) -> None:
    package.add("0002", SECOND)
    migrate(any_database, package.name)
    (package.versions / "0002.py").unlink()

    migrate(any_database, package.name)

    with any_database.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0002"


def test_a_migration_that_fails_changes_nothing(any_database: Database, package: Package) -> None:
    package.add("0002", SECOND)
    upgrade(any_database, package.name)
    package.add("0003", BROKEN)

    with pytest.raises(Exception, match="nowhere"):
        upgrade(any_database, package.name)

    with any_database.read() as session:
        assert session.execute(text("SELECT count(*) FROM first")).scalar_one() == 1
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0002"


def migrate_apart(url: str, package: str, folder: str, results: Any) -> None:
    """Migrate in a process of its own."""
    sys.path.insert(0, folder)
    database = Database(url)
    try:
        upgrade(database, package)
        results.put("done")
    except Exception as exc:
        results.put(repr(exc))
    finally:
        database.close()


def test_two_processes_may_migrate_at_once(any_database: Database, any_database_url: str, package: Package) -> None:
    package.add("0002", SECOND)
    spawn = multiprocessing.get_context("fork")
    results = spawn.SimpleQueue()
    folder = str(package.versions.parents[2])
    processes = [
        spawn.Process(target=migrate_apart, args=(any_database_url, package.name, folder, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [results.get() for _ in processes] == ["done", "done"]
    assert is_current(any_database, package.name)


def test_settings_of_a_migration_do_not_leak_into_the_pool(any_database: Database, package: Package) -> None:
    if any_database.is_sqlite:
        pytest.skip("SQLite has no such settings")
    upgrade(any_database, package.name)

    with any_database.read() as session:
        assert session.execute(text("SHOW statement_timeout")).scalar_one() == "30s"
        assert session.execute(text("SHOW lock_timeout")).scalar_one() == "0"
