"""Starts the drift service: migrates its database, then serves. Reads nothing but the environment."""

from __future__ import annotations

from modelyard_common.db import Database
from modelyard_common.db.migrate import prepare
from modelyard_common.process import begin
from modelyard_common.serving import serve

from modelyard_drift.settings import DriftSettings
from modelyard_drift.wiring import build

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    settings = begin("drift", DriftSettings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database("drift"))
    prepare(database, "modelyard_drift", settings.migrations)
    serve(build(settings, database), settings)


if __name__ == "__main__":
    main()
