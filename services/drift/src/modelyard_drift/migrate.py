"""Brings the database of drift to the newest revision, and ends: what a deployment runs before new pods start."""

from __future__ import annotations

from modelyard_common.db import Database
from modelyard_common.db.migrate import migrate
from modelyard_common.process import begin

from modelyard_drift.settings import DriftSettings

__all__ = ["main"]


def main() -> None:
    """Migrate the database that ``MODELYARD_DRIFT_DATABASE_URL`` names."""
    # Nothing listens here, so the tokens that an image's own settings ask for are not needed.
    settings = begin("drift", DriftSettings, host="127.0.0.1", auth="none")
    migrate(Database(settings.database("drift")), "modelyard_drift")


if __name__ == "__main__":
    main()
