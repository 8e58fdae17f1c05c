"""Starts the training service: migrates its database, then serves. Reads nothing but the environment."""

from __future__ import annotations

from modelyard_common.db import Database
from modelyard_common.db.migrate import prepare
from modelyard_common.process import begin
from modelyard_common.serving import serve

from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    settings = begin("training", TrainingSettings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database("training"))
    prepare(database, "modelyard_training", settings.migrations)
    serve(build(settings, database), settings)


if __name__ == "__main__":
    main()
