"""Alembic's entry: the common part runs the migrations of this service's tables."""

from modelyard_common.db.migrate import run_env
from modelyard_drift.adapters.tables import Base

run_env(Base.metadata)
