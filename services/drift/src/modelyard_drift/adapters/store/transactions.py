"""Transactions on one database: the rooms of the store put together behind the ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modelyard_common.db import Database

from modelyard_drift.adapters.store.episodes import ReadsEpisodes, WritesEpisodes
from modelyard_drift.adapters.store.labels import ReadsLabels, WritesLabels
from modelyard_drift.adapters.store.policies import ReadsPolicies, WritesPolicies
from modelyard_drift.adapters.store.predictions import ReadsPredictions
from modelyard_drift.adapters.store.retention import Forgets
from modelyard_drift.adapters.store.windows import ReadsWindows
from modelyard_drift.usecases.ports import Reader, Writer

__all__ = ["SqlReader", "SqlTransactions", "SqlWriter"]


class SqlReader(ReadsPolicies, ReadsPredictions, ReadsLabels, ReadsWindows, ReadsEpisodes):
    """Reads in one transaction."""


class SqlWriter(WritesPolicies, WritesLabels, WritesEpisodes, Forgets):
    """Reads and writes in one transaction."""


class SqlTransactions:
    """Opens transactions on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Open one that only reads."""
        with self._database.read() as session:
            yield SqlReader(session)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """Open one that commits at its end, or undoes everything when something is raised."""
        with self._database.write() as session:
            yield SqlWriter(session)
