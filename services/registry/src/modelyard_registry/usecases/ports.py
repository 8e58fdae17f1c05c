"""What the use cases need from outside: one transaction's store, bundles, evidence, and the mirror.

``Store`` is the view of one transaction; whoever opened it commits it. The other ports reach over the network and
are never called while a transaction is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.registry_v1 import PromotionState, RoutingTable, WatchEvent

from modelyard_registry.domain.aliases import AliasChange
from modelyard_registry.domain.ledger import Entry, Head
from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.domain.signals import Comparison
from modelyard_registry.usecases.records import MirrorTask, Model, Promotion, Reign, Report, Version

__all__ = [
    "BundleBytes",
    "Bundles",
    "EvidenceSource",
    "MirroredModel",
    "MlflowReads",
    "ModelMirror",
    "Passed",
    "Reader",
    "Store",
    "Transactions",
]


class Reader(Protocol):
    """Everything that can be read in one transaction."""

    def model(self, name: str) -> Model | None:
        """Return the model, also when it is deleted."""

    def models(self, *, after: str = "", limit: int = 100) -> Sequence[Model]:
        """Return models that are not deleted, by name."""

    def version(self, model: str, digest: str) -> Version | None:
        """Return the version with that digest."""

    def version_number(self, model: str, number: int) -> Version | None:
        """Return the version with that number."""

    def versions(self, model: str, *, before: int | None = None, limit: int = 100) -> Sequence[Version]:
        """Return versions, newest first."""

    def versions_of_run(self, mlflow_run_id: str) -> Sequence[Version]:
        """Return the versions whose bundle lies in an MLflow run; usually one."""

    def champion(self, model: str) -> Version | None:
        """Return the champion."""

    def contenders(self, model: str, limit: int) -> Sequence[Version]:
        """Return former champions that stay in contention, the latest reign first."""

    def reigns(self, model: str) -> Sequence[Reign]:
        """Return the times as champion, newest first."""

    def active_rollout(self, model: str) -> Rollout | None:
        """Return the rollout that is running or paused."""

    def active_rollouts(self) -> Sequence[Rollout]:
        """Return all of them."""

    def rollouts(self, model: str, *, offset: int = 0, limit: int = 100) -> Sequence[Rollout]:
        """Return rollouts, newest first."""

    def promotion(self, promotion_id: str) -> Promotion | None:
        """Return a promotion."""

    def promotions(
        self, model: str, *, state: PromotionState | None = None, offset: int = 0, limit: int = 100
    ) -> Sequence[Promotion]:
        """Return promotions, of all states or of one, newest first."""

    def waiting_promotions(self) -> Sequence[Promotion]:
        """Return promotions that wait for approval and were asked for after the model's last decision, oldest first."""

    def routing(self, model: str) -> RoutingTable | None:
        """Return the routing table in force."""

    def report(self, model: str, instance: str) -> Report | None:
        """Return the last report of an inference instance."""

    def ledger(self, *, model: str | None, after: int, limit: int) -> Sequence[Entry]:
        """Return entries in their order."""

    def ledger_head(self) -> Head:
        """Return the end of the chain, as it is kept apart from the entries."""

    def chain(self) -> Iterator[Entry]:
        """Yield all entries from the first."""

    def events(self, after: int, limit: int = 100) -> Sequence[WatchEvent]:
        """Return watch events after a sequence number."""

    def event_span(self) -> tuple[int, int]:
        """Return the oldest event that is kept and the newest that was given; (1, 0) when there is none."""

    def routing_snapshot(self) -> Sequence[WatchEvent]:
        """Return the present routing of every model as the event that announced it, oldest first."""

    def mirror_due(self, now: datetime, limit: int = 20) -> Sequence[MirrorTask]:
        """Return the models whose mirror is behind and may be tried now."""

    def mirror_pending(self) -> int:
        """Return how many mirrors are behind."""


class Store(Reader, Protocol):
    """Everything that can be changed in one transaction."""

    def lock_model(self, name: str) -> Model | None:
        """Return the model and keep every other writer of it out until the transaction ends."""

    def save_model(self, model: Model) -> None:
        """Insert or update a model."""

    def next_number(self, model: str) -> int:
        """Return the number of the next version; numbers are never reused."""

    def save_version(self, version: Version) -> None:
        """Insert or update a version."""

    def add_reign(self, model: str, digest: str, since: datetime) -> None:
        """Remember that a version became champion."""

    def save_rollout(self, rollout: Rollout) -> None:
        """Insert or update a rollout."""

    def save_promotion(self, promotion: Promotion) -> None:
        """Insert or update a promotion."""

    def publish(self, table: RoutingTable, at: datetime) -> None:
        """Put a routing table into force and announce it."""

    def announce(self, model: str, at: datetime) -> None:
        """Announce that a model changed."""

    def skip_events(self, number: int) -> None:
        """Leave that many numbers of events out, because they may have been given already."""

    def save_report(self, report: Report) -> None:
        """Keep the last report of an instance."""

    def record(self, *, at: datetime, actor: str, kind: str, model: str, subject: str, body: Mapping[str, Any]) -> None:
        """Append to the ledger."""

    def want_mirror(self, model: str, at: datetime) -> None:
        """Note that the mirror of a model is behind."""

    def recall(self, key: str, request: str) -> dict[str, Any] | None:
        """Return the first answer to an idempotency key; raise Conflict when it was used for another request."""

    def remember(self, key: str, request: str, answer: dict[str, Any], now: datetime) -> None:
        """Keep the answer to an idempotency key."""

    def mirror_done(self, task: MirrorTask) -> None:
        """Note that the mirror has seen a change."""

    def mirror_failed(self, task: MirrorTask, error: str, next_at: datetime) -> None:
        """Note that the mirror could not be brought up to date, and when to try again."""


class Transactions(Protocol):
    """Opens transactions; leaving the block commits, an exception rolls back."""

    def read(self) -> AbstractContextManager[Reader]:
        """Open a transaction that only reads."""

    def write(self) -> AbstractContextManager[Store]:
        """Open a transaction that may change things."""


class BundleBytes(Protocol):
    """One file of a bundle, verified."""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def chunks(self) -> Iterator[bytes]:
        """Yield them."""


class Bundles(Protocol):
    """The verified content-addressed cache of bundles, filled from MLflow."""

    def verify(self, *, run_id: str, artifact_path: str, digest: str) -> BundleManifest:
        """Read every file of a bundle, hash it, compare it with the manifest, and keep it.

        Raises:
            Invalid: naming the file that differs, is missing or is not listed.
            Unavailable: when MLflow is away and the cache does not hold it.
        """

    def open(self, version: Version, path: str) -> BundleBytes:
        """Return one file of a version, verified; a bundle that was lost or damaged is fetched again.

        Raises:
            NotFound: the bundle has no such file.
            Unavailable: the cache lost it and MLflow is away.
        """

    def drop(self, digest: str) -> None:
        """Forget a bundle's bytes."""


@dataclass(frozen=True, slots=True)
class Passed:
    """MLflow's answer to a read, on its way."""

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]


class MlflowReads(Protocol):
    """Passes reads on to MLflow; whoever asks has checked that they may pass."""

    def forward(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Passed:
        """Send a request on and return the answer, whose body is still to be read.

        Raises:
            Unavailable: MLflow does not answer.
            TooLarge: it announces more than the bound.
        """


class EvidenceSource(Protocol):
    """Where a rollout's evidence comes from."""

    def comparison(self, model: str, revision: int) -> Comparison:
        """Return candidate and champion within one routing revision.

        Raises:
            ModelyardError: when it cannot be had; the message says why.
        """


@dataclass(frozen=True, slots=True)
class MirroredModel:
    """A model as MLflow shows it."""

    aliases: Mapping[str, str]


class ModelMirror(Protocol):
    """The model registry of MLflow, as a mirror of ours. Every method may be repeated."""

    def ensure_model(self, name: str, description: str) -> MirroredModel:
        """Create the registered model unless it exists, and return it."""

    def ensure_version(self, version: Version) -> str:
        """Create the version unless one with its digest exists, and return its number there."""

    def set_alias(self, model: str, change: AliasChange) -> None:
        """Set an alias or take it away."""

    def set_state(self, version: Version) -> None:
        """Tag the version with its state."""

    def delete_model(self, name: str) -> None:
        """Delete the registered model if it exists."""
