"""What the use cases need from outside: a store, a launcher, and what the peers know.

``Store`` is the view of one transaction; ``Transactions`` opens them, and none is open while a launcher or a peer is
asked. The launcher is a port because there are two kinds of machine to launch on, a laptop and a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.runs import Run, State
from modelyard_training.domain.schedules import Schedule
from modelyard_training.domain.supervision import Sighting

__all__ = [
    "Claim",
    "Job",
    "KnownModel",
    "Labels",
    "Launcher",
    "LogPage",
    "Models",
    "Reader",
    "Store",
    "Tables",
    "Transactions",
]


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt of a run, ready to be launched."""

    run: str
    attempt: int
    document: Mapping[str, Any]
    """The contract's ``JobSpec``; the launcher fills ``work_dir``, which only it knows."""
    cpu: str = "1"
    memory: str = "2Gi"
    timeout_s: float = 1800.0
    """What is left of the run's time; a machine that can enforce it does so a little later than the supervisor."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """A piece of a log."""

    text: str
    next_offset: int
    """Where to go on reading, in bytes."""


class Launcher(Protocol):
    """Starts attempts and finds them again. Law: an attempt is started at most once, whatever is killed when."""

    def launch(self, job: Job) -> None:
        """Start an attempt. Doing so again, also from another process, changes nothing.

        Raises:
            Unavailable: it could not be started now; trying again may help.
            Invalid: it can never be started.
        """

    def sight(self, run: str, attempt: int) -> Sighting:
        """Return how the attempt stands, also when an earlier process launched it."""

    def terminate(self, run: str, attempt: int) -> None:
        """Ask an attempt to end. Asking again changes nothing."""

    def kill(self, run: str, attempt: int) -> None:
        """End an attempt and everything that it started; one that was never launched can not be launched any more."""

    def result(self, run: str, attempt: int) -> Mapping[str, Any] | None:
        """Return the final report (contract ``RunReport``) that an attempt left behind, when there is one."""

    def log(self, run: str, *, offset: int = 0, limit_bytes: int = 1 << 20) -> LogPage:
        """Return what the run's attempts wrote, from a byte offset on; a negative offset counts from the end."""

    def tidy(self, run: str) -> None:
        """Forget what a run that is over needs no more; its log stays."""

    def check(self) -> str | None:
        """Return what keeps it from starting anything, in a sentence; None when nothing does."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model's policy as the registry last told it."""

    name: str
    training_digest: str
    spec: ManagedModelSpec
    written: Mapping[str, Any]
    """The spec as it is written (camelCase): what a job is given."""
    champion: str | None = None
    deleted: bool = False


class Models(Protocol):
    """The registry's models."""

    def all(self) -> Sequence[KnownModel]:
        """Return the models that are not deleted."""

    def one(self, name: str) -> KnownModel | None:
        """Return a model, also a deleted one; None when there never was one."""


class Labels(Protocol):
    """What drift knows about labels."""

    def newest_seq(self, model: str) -> int:
        """Return the sequence number of the newest label of a model.

        Raises:
            Unavailable: drift is away.
        """


class Tables(Protocol):
    """Where the bytes of dataset versions are: one canonical file each, never changed."""

    def draft(self) -> Path:
        """Return a new path for an upload, on the file system where it may stay."""

    def path(self, digest: str) -> Path | None:
        """Return the file of a dataset version; None when it is not there."""

    def publish(self, draft: Path, digest: str) -> None:
        """Move a finished draft to its place for good: synced to the disk, all or nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A key under which a run was asked for; whoever asks under the same key gets the same run."""

    key: str
    request_digest: str = ""
    """Of the request, where the same key with another request is a mistake of the caller."""


class Reader(Protocol):
    """Everything that can be read in one transaction."""

    def run(self, run_id: str) -> Run | None:
        """Return a run."""

    def runs(
        self, *, model: str | None = None, state: State | None = None, before: str | None = None, limit: int = 100
    ) -> Sequence[Run]:
        """Return runs, newest first, older than the id ``before``."""

    def unfinished(self) -> Sequence[Run]:
        """Return runs that have begun and whose process is not known to be gone, oldest first."""

    def waiting(self, limit: int) -> Sequence[Run]:
        """Return pending runs, oldest first."""

    def count(self, *states: State) -> int:
        """Return how many runs are in these states."""

    def live_runs(self, model: str) -> Sequence[Run]:
        """Return a model's runs that are not over."""

    def claimed(self, key: str) -> tuple[Run, str] | None:
        """Return the run that was asked for under a key, with the digest of that request."""

    def dataset(self, digest: str) -> Dataset | None:
        """Return a dataset version."""

    def datasets(self, *, before: str | None = None, limit: int = 100) -> Sequence[Dataset]:
        """Return dataset versions, newest first, older than the version with the digest ``before``."""

    def models(self) -> Sequence[KnownModel]:
        """Return the models as they were last seen, deleted ones included."""

    def schedules(self, model: str | None = None) -> Sequence[Schedule]:
        """Return the cron triggers, by model and line."""


class Store(Reader, Protocol):
    """Everything that can be changed in one transaction."""

    def lock_queue(self) -> None:
        """Keep other transactions from adding or beginning runs until this one ends."""

    def lock_run(self, run_id: str) -> Run | None:
        """Return a run and keep other writers of it out until the transaction ends."""

    def add_run(self, run: Run, claims: Sequence[Claim]) -> None:
        """Insert a run together with the keys under which it was asked for."""

    def save_run(self, run: Run) -> None:
        """Update a run."""

    def release(self, model: str, *, only_unsuccessful: bool) -> None:
        """Give up the claims of a model's runs for its specs, so that the same spec may be trained again."""

    def add_dataset(self, dataset: Dataset) -> Dataset:
        """Insert a dataset version and return it; the one that is there already stays and is returned."""

    def save_model(self, model: KnownModel) -> None:
        """Insert or update a model as it was seen."""

    def save_schedule(self, schedule: Schedule) -> None:
        """Insert or update a cron trigger."""

    def lock_schedule(self, model: str, cron: str) -> Schedule | None:
        """Return a cron trigger and keep other writers of it out until the transaction ends."""

    def drop_schedule(self, model: str, cron: str) -> None:
        """Remove a cron trigger."""


class Transactions(Protocol):
    """Opens transactions; leaving the block commits, an exception rolls back."""

    def read(self) -> AbstractContextManager[Reader]:
        """Open a transaction that only reads."""

    def write(self) -> AbstractContextManager[Store]:
        """Open a transaction that may change things."""
