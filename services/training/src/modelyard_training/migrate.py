"""Brings the database of training to the newest revision, and ends: what a deployment runs before new pods start."""

from __future__ import annotations

from modelyard_common.db import Database
from modelyard_common.db.migrate import migrate
from modelyard_common.process import begin

from modelyard_training.settings import TrainingSettings

__all__ = ["main"]


def main() -> None:
    """Migrate the database that ``MODELYARD_TRAINING_DATABASE_URL`` names."""
    # Nothing listens here, so the tokens that an image's own settings ask for are not needed.
    settings = begin("training", TrainingSettings, host="127.0.0.1", auth="none")
    migrate(Database(settings.database("training")), "modelyard_training")


if __name__ == "__main__":
    main()
