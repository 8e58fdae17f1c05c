"""What the use cases need of the outside: a place for records, threads with a deadline, bundles, somebody to tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from modelyard_bundle.runtimes.base import Predicted, Runtime
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference.domain.records import Block
from modelyard_inference.domain.requests import Role, Rows
from modelyard_inference.domain.routing import Routing

__all__ = [
    "Bundles",
    "Lane",
    "Loading",
    "Observer",
    "PayloadSink",
    "Predicting",
    "Reports",
    "Run",
    "Runtimes",
    "Shelf",
    "TableFormat",
    "Tables",
    "VersionOutcome",
]

T = TypeVar("T")

Predicting = Callable[[Predicted | Exception], None]
"""Takes what a runtime answers, or what was raised in its place. A runtime that works in another process may have
``begin(columns, done) -> bool``, by which it is asked on the event loop; False leaves it to ``predict`` in a thread."""

VersionOutcome = Literal["serving", "refused", "tripped"]


class PayloadSink(Protocol):
    """Keeps records until drift has them. Never raises: a prediction does not fail because its record is lost."""

    def append(self, blocks: Iterable[Block]) -> None:
        """Write the records of answers so that they survive this process; drop and count what finds no room."""


class Lane(Protocol):
    """A few threads that work for the event loop and for other threads."""

    def run(self, work: Callable[[], T], timeout_s: float) -> Awaitable[T]:
        """Return what work returns. Raise Late after timeout_s, Overloaded when too much waits."""

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Return the same to a thread."""


TableFormat = Literal["parquet", "arrow_stream", "arrow_file"]


class Tables(Protocol):
    """Reads and writes tables in binary formats."""

    async def read(self, body: bytes, form: TableFormat, timeout_s: float) -> Rows:
        """Return a table as rows. Raise Invalid, TooLarge or Late."""

    async def write(self, columns: Mapping[str, Sequence[Any]]) -> bytes:
        """Return columns as an Arrow stream."""


class Bundles(Protocol):
    """Where verified bundles come from."""

    def open(self, model: str, digest: str) -> tuple[Path, BundleManifest]:
        """Return a folder in which every byte is what the digest stands for.

        Raises:
            Invalid: the bytes that can be had are not those.
            Unavailable: they cannot be had now.
        """

    def reading(self, model: str, digest: str) -> AbstractContextManager[tuple[Path, BundleManifest]]:
        """Give the same; the folder stays until this ends."""


class Runtimes(Protocol):
    """Where a version's runtime comes from: this process, a process beside it, or a server elsewhere."""

    def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> Runtime:
        """Return what runs a verified bundle by the runtime of that name.

        Whoever drops the last reference to it has unloaded it.

        Raises:
            Invalid: the bundle is damaged, or this server does not have or allow that runtime; says what to do.
            Unavailable: it cannot be had now.
        """


class Reports(Protocol):
    """Tells the registry what became of versions here. Returns at once; delivers when it can."""

    def tell(self, model: str, digest: str, revision: int, outcome: VersionOutcome, reason: str = "") -> None:
        """Tell one outcome; telling the same again does nothing."""


class Loading(Protocol):
    """Serves models and stops to, by request: in this process, or in all that are this server."""

    def load(self, model: str) -> None:
        """Serve a model as its routing says, now. Raise NotFound or Unavailable."""

    def unload(self, model: str) -> None:
        """Stop serving a model until it is loaded again. Raise NotFound."""


class Shelf(Protocol):
    """Keeps the routing that is in force for the time after a restart."""

    def save(self, routings: Sequence[Routing]) -> None:
        """Replace what is kept."""


class Run(msgspec.Struct):
    """What ran together.

    Attributes:
        requests: how many; rows: of all of them.
        predict_s: how long the model ran.
        answers: what was answered, and is still waited for, by role: rows, and how long each answer took with its
            wait.
        queued_s: how long each that was answered waited for its turn.
    """

    model: str
    version: int
    requests: int
    predict_s: float
    rows: int = 0
    answers: dict[Role, tuple[list[int], list[float]]] = {}
    queued_s: list[float] = []

    def answered(self, role: Role, rows: int, took_s: float, queued_s: float) -> None:
        """Count an answer."""
        of_role = self.answers.get(role)
        if of_role is None:
            of_role = self.answers[role] = ([], [])
        of_role[0].append(rows)
        of_role[1].append(took_s)
        self.queued_s.append(queued_s)


class Observer(Protocol):
    """Counts."""

    def answered(self, model: str, version: int, role: Role, rows: int, took_s: float) -> None:
        """Count an answer."""

    def ran(self, run: Run) -> None:
        """Count the answers of a batch."""

    def took(self, model: str, parse_s: float, encode_s: float, times: int = 1) -> None:
        """Count how long it took to read a request and to write its answer, of so many."""

    def failed(self, model: str, version: int, role: Role, reason: str) -> None:
        """Count a version's failure; reason: ``late``, ``refused``, ``failed``, ``overloaded`` or ``away``."""

    def shadow_dropped(self, model: str, rows: int) -> None:
        """Count shadow copies that found no room."""
