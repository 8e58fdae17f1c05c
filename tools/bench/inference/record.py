"""The record of a run: what was measured, round by round, as JSON. What is read from it is computed elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.inference.names import Dialect

__all__ = ["Cell", "Place", "Record", "Round", "Served"]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Shape):
    """What is measured: one way of asking for one model."""

    model: str
    dialect: Dialect
    rows: int
    connections: int


class Round(_Shape):
    """One turn of one server.

    Attributes:
        server_cpu_s: CPU seconds of its process tree; of ours also what it did afterwards, until its log was sent.
        load_cpu_s: CPU seconds of the load.
    """

    seconds: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    server_cpu_s: float
    load_cpu_s: float


class Cell(_Shape):
    """All turns of one server at one place; a problem makes its figures not count."""

    server: str
    place: Place
    rounds: tuple[Round, ...] = ()
    problem: str | None = None

    @property
    def counts(self) -> bool:
        """Whether its figures count: answers right, no request failed."""
        return self.problem is None and bool(self.rounds)

    @property
    def rate(self) -> float:
        """Requests a second: the median of the rounds."""
        return statistics.median(turn.requests / turn.seconds for turn in self.rounds)

    @property
    def p50_ms(self) -> float:
        """Median latency: the median of the rounds."""
        return statistics.median(turn.p50_ms for turn in self.rounds)

    @property
    def p99_ms(self) -> float:
        """The latency of the slowest in a hundred: the median of the rounds."""
        return statistics.median(turn.p99_ms for turn in self.rounds)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server a request: all rounds together, and hardly touched by neighbours."""
        return sum(turn.server_cpu_s for turn in self.rounds) / sum(turn.requests for turn in self.rounds) * 1e6

    @property
    def load_us(self) -> float:
        """CPU microseconds of the load a request."""
        return sum(turn.load_cpu_s for turn in self.rounds) / sum(turn.requests for turn in self.rounds) * 1e6


class Served(_Shape):
    """One server with one model: from the start of its process to its end.

    Attributes:
        start_s: to the first right answer, by the clock.
        start_cpu_s: the same in CPU seconds: what neighbours do hardly changes it.
        rss_mib: of the process tree after the load; what processes share counts for each.
        pss_mib: the same; what they share counts once.
    """

    server: str
    model: str
    start_s: float | None = None
    start_cpu_s: float | None = None
    rss_mib: float | None = None
    pss_mib: float | None = None
    processes: int | None = None
    problem: str | None = None


class Record(_Shape):
    """A whole run.

    Attributes:
        missing: peers that could not be installed, and why.
        cut: places that the time was not enough for.
        events: prediction events that the stand-in for drift took from each of our servers.
    """

    taken: str
    commit: str
    machine: str
    cores: str
    neighbours: str
    versions: dict[str, str]
    rounds: int
    seconds: float
    titles: dict[str, str]
    kinds: dict[str, str]
    batching: tuple[str, ...]
    served: tuple[Served, ...]
    cells: tuple[Cell, ...]
    missing: dict[str, str] = {}
    cut: tuple[Place, ...] = ()
    events: dict[str, int] = {}

    def at(self, place: Place) -> dict[str, Cell]:
        """Return the cells of a place that count, by server."""
        return {cell.server: cell for cell in self.cells if cell.place == place and cell.counts}

    def places(self) -> tuple[Place, ...]:
        """Return what was measured, in order."""
        return tuple(dict.fromkeys(cell.place for cell in self.cells))

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the servers of a kind, in order."""
        return tuple(server for server, its in self.kinds.items() if its == kind)

    def about(self, servers: Collection[str], places: Collection[Place]) -> Record:
        """Return of it what concerns these servers at these places, what kept them from being measured included."""
        models = {place.model for place in places}
        return self.model_copy(
            update={
                "served": tuple(one for one in self.served if one.server in servers and one.model in models),
                "cells": tuple(cell for cell in self.cells if cell.server in servers and cell.place in places),
                "missing": {server: why for server, why in self.missing.items() if server in servers},
                "cut": tuple(place for place in self.cut if place in places),
            }
        )

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1, exclude_defaults=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read it from a file."""
        return cls.model_validate_json(path.read_bytes())


def best(cells: Iterable[Cell]) -> Cell | None:
    """Return the cell with the highest rate."""
    return max(cells, key=lambda cell: cell.rate, default=None)
