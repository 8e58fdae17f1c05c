"""One database of one service: SQLite in a file, or PostgreSQL.

SQLite runs in WAL mode with ``synchronous=FULL``: what was committed survives a killed process and a lost
power supply. Writers begin IMMEDIATE, so that two of them queue instead of failing at commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import sessionmaker

from modelyard_common.db.session import ReadSession, WriteSession
from modelyard_common.errors import Unavailable

__all__ = ["Database"]

_BUSY_TIMEOUT_MS = 10_000
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")


class Database:
    """Gives sessions.

    Args:
        url: ``sqlite:////absolute/path.db`` or ``postgresql://…``.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        # An error names its statement; the values in it are somebody's data, and errors are logged.
        options: dict[str, Any] = {"pool_pre_ping": True, "hide_parameters": True}
        if self.is_sqlite:
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            options["connect_args"] = {"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
        else:
            options["connect_args"] = {"connect_timeout": 5, "options": "-c statement_timeout=30000"}
        self.engine: Engine = create_engine(parsed, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._readers = sessionmaker(self.engine, class_=ReadSession, expire_on_commit=False)
        writing = self.engine.execution_options(modelyard_write=True)
        self._writers = sessionmaker(writing, class_=WriteSession, expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[ReadSession]:
        """Open a session that is rolled back at the end, whatever happened.

        Raises:
            Unavailable: the database is away, busy or full.
        """
        session = self._readers()
        try:
            yield session
        except OperationalError as exc:
            if (away := _away(exc)) is not None:
                raise away from exc
            raise
        finally:
            session.rollback()
            session.close()

    @contextmanager
    def write(self) -> Iterator[WriteSession]:
        """Open a session that is committed at the end, or rolled back when anything is raised.

        Raises:
            Unavailable: the database is away, busy or full.
        """
        session = self._writers()
        try:
            yield session
            session.commit()
        except OperationalError as exc:
            session.rollback()
            if (away := _away(exc)) is not None:
                raise away from exc
            raise
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    def check(self) -> str | None:
        """Return None if the database answers, else a sentence: a health check."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as exc:
            return f"the database does not answer ({type(exc).__name__})"
        return None

    def require(self) -> None:
        """Raise Unavailable if the database does not answer."""
        if (sentence := self.check()) is not None:
            raise Unavailable(sentence)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _away(exc: OperationalError) -> Unavailable | None:
    """Return Unavailable for what passes; None for what is a mistake of ours (SQLite: no such table)."""
    code = getattr(exc.orig, "sqlite_errorname", None)
    if code is not None and not str(code).startswith(_PASSING):
        return None
    return Unavailable(f"the database does not answer ({code or type(exc.orig).__name__})", retry_after_s=1.0)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    write = connection.get_execution_options().get("modelyard_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
