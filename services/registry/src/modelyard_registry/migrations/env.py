"""Alembic's entry: runs the registry's migrations on the connection that was opened for them."""

from __future__ import annotations

from modelyard_common.db.migrate import run_env
from modelyard_registry.adapters.tables import Base

run_env(Base.metadata)
