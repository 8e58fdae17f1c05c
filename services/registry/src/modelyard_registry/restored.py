"""Tells a registry that its database was restored from a backup, and ends: run it once, before anything is served.

    python -m modelyard_registry.restored

Without it nothing is lost, but routing revisions would be given a second time: see ``usecases/declare_restored``.
"""

from __future__ import annotations

from modelyard_common.clock import SystemClock
from modelyard_common.db import Database
from modelyard_common.db.migrate import prepare
from modelyard_common.logs import get_logger
from modelyard_common.process import begin

from modelyard_registry.adapters.store import SqlTransactions
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.declare_restored import declare_restored

__all__ = ["main"]

_log = get_logger(__name__)


def main() -> None:
    """Declare the database that ``MODELYARD_REGISTRY_DATABASE_URL`` names as restored."""
    # Nothing listens here, so the tokens that an image's own settings ask for are not needed.
    settings = begin("registry", RegistrySettings, host="127.0.0.1", auth="none")
    database = Database(settings.database("registry"))
    try:
        prepare(database, "modelyard_registry", "require")
        # Watches of other processes look into the database by themselves.
        with SqlTransactions(database, announce=lambda: None).write() as store:
            models = declare_restored(Act(store, "restore", SystemClock().now()))
    finally:
        database.close()
    _log.info("registry.restored", models=models)


if __name__ == "__main__":
    main()
