"""The store over SQLAlchemy: one object for one session; SQLite and PostgreSQL run the same tests."""

from modelyard_drift.adapters.store.transactions import SqlReader, SqlTransactions, SqlWriter

__all__ = ["SqlReader", "SqlTransactions", "SqlWriter"]
