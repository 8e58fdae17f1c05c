"""The database door: an engine, sessions by right (read or write), portable column types, migrations."""

from modelyard_common.db.engine import Database
from modelyard_common.db.session import ReadSession, WriteSession, reading, writing
from modelyard_common.db.types import JsonColumn, UtcDateTime

__all__ = ["Database", "JsonColumn", "ReadSession", "UtcDateTime", "WriteSession", "reading", "writing"]
