"""What the use cases need of the outside: the log, the windows, the registry, training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from modelyard_contracts.drift_v1 import WindowView
from modelyard_contracts.events_v1 import PredictionEvent
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_drift.domain.comparing import Reply
from modelyard_drift.domain.episodes import Episode
from modelyard_drift.domain.performance import Answered
from modelyard_drift.domain.windows import OpenWindow

__all__ = [
    "Decided",
    "Entry",
    "KeptLabel",
    "LabelledRow",
    "LogState",
    "Policy",
    "Progress",
    "Reader",
    "RegistryPort",
    "StoredWindow",
    "TrainingPort",
    "Transactions",
    "Writer",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """A model's manifest."""

    model: str
    spec: ManagedModelSpec
    spec_digest: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class LogState:
    """Where a model's log stands."""

    seq: int = 0
    prediction_seq: int = 0
    label_seq: int = 0
    requests: int = 0
    labels: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the prediction log, as processing reads it."""

    seq: int
    role: str
    revision: int
    champion: str
    event_time: datetime
    features: dict[str, Any]
    prediction: Any
    score: float | None
    sampled: bool
    error: bool


@dataclass(frozen=True, slots=True)
class KeptLabel:
    """A label as it is in the log."""

    prediction_id: str
    value: Any
    revision: int


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """An answered row with its newest label."""

    prediction_id: str
    event_time: datetime
    label_seq: int
    label: Any
    prediction: Any
    version: str
    features: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far processing has come."""

    reference: str | None = None
    revision: int = -1
    watermark: datetime | None = None
    processed_seq: int = 0
    label_cursor: int = 0
    labels_missing: int = 0
    window: OpenWindow | None = None


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """A closed window."""

    index: int
    first_seq: int
    last_seq: int
    rows: int
    view: WindowView
    counters: Mapping[str, Any]
    labelled: int = 0
    fresh_labels: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it is kept."""

    id: str
    model: str
    episode: str
    at_event_time: datetime
    decision: str
    trigger: str
    reason: str
    label_seq: int
    command: str
    run: str | None = None
    traceparent: str | None = None
    """The trace that it was taken in; its command goes on with it."""


class Reader(Protocol):
    """Reads, in one transaction."""

    def policies(self) -> Sequence[Policy]:
        """Return all policies."""

    def policy(self, model: str) -> Policy | None:
        """Return a model's policy."""

    def log(self, model: str) -> LogState | None:
        """Return where a model's log stands; None when nothing ever came."""

    def progress(self, model: str) -> Progress:
        """Return how far processing has come."""

    def backlog(self) -> Sequence[str]:
        """Return the models whose log is ahead of processing."""

    def entries(self, model: str, *, after: int, limit: int) -> Sequence[Entry]:
        """Return the next rows of the log, in the order of ingest."""

    def baseline(self, digest: str) -> str | None:
        """Return the baseline of a version."""

    def answered(self, model: str, *, first_seq: int, last_seq: int) -> Sequence[Answered]:
        """Return the labelled rows of a part of the log."""

    def answered_in(self, model: str, revision: int) -> Sequence[Answered]:
        """Return the labelled rows of a routing revision, shadow copies included."""

    def replies(self, model: str, revision: int, *, limit: int) -> Sequence[Reply]:
        """Return the newest rows of a routing revision, of every role."""

    def labelled(self, model: str, until: int) -> Iterator[LabelledRow]:
        """Yield answered rows with labels received up to a sequence number, by event time, then ingest."""

    def label_places(self, model: str, *, after: int, limit: int) -> tuple[int, Sequence[int]]:
        """Return (the last label seq looked at, the prediction seqs that those labels belong to)."""

    def unlabelled(self, model: str, *, up_to: datetime) -> int:
        """Return how many answered rows up to an event time have no label."""

    def windows(self, model: str, *, before: int | None, limit: int) -> Sequence[StoredWindow]:
        """Return closed windows, newest first."""

    def window(self, model: str, index: int) -> StoredWindow | None:
        """Return a closed window."""

    def windows_with_fresh_labels(self, model: str) -> Sequence[StoredWindow]:
        """Return the closed windows that got labels since their performance was computed."""

    def episodes(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Episode]]:
        """Return (number, episode), newest first."""

    def open_episodes(self, model: str) -> Sequence[Episode]:
        """Return the open episodes, oldest first."""

    def decisions(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Decided]]:
        """Return (number, decision), newest first."""

    def last_decision(self, episode: str, kind: str | None = None) -> Decided | None:
        """Return the newest decision about an episode, or the newest of a kind."""

    def decision_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return for each model how often each decision was taken."""

    def command_times(self, model: str) -> Sequence[datetime]:
        """Return the event times of the commands so far."""

    def pending(self, model: str | None = None) -> Sequence[Decided]:
        """Return the commands that wait for delivery, oldest first."""

    def prediction_ids(self, model: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Return (seq, id) of answers in the log, in the order of ingest."""


class Writer(Reader, Protocol):
    """Reads and writes, in one transaction."""

    def lock_log(self, model: str) -> LogState:
        """Lock a model's log against other ingest and return where it stands."""

    def known_events(self, model: str, ids: Sequence[str]) -> set[tuple[str, str]]:
        """Return which (id, role) of these ids are in the log."""

    def answered_ids(self, model: str, ids: Sequence[str]) -> set[str]:
        """Return which of these rows were answered."""

    def append_events(self, model: str, first_seq: int, events: Sequence[PredictionEvent]) -> None:
        """Append rows under sequence numbers from first_seq on."""

    def kept_labels(self, model: str, ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the newest revision of each label that is known."""

    def append_labels(self, model: str, first_seq: int, labels: Sequence[tuple[KeptLabel, bool]]) -> None:
        """Append (label, whether its prediction is here)."""

    def join_waiting(self, model: str, ids: Sequence[str], first_seq: int) -> int:
        """Join the waiting labels of rows that have come; they count as received now, from first_seq on."""

    def save_log(self, model: str, state: LogState) -> None:
        """Keep where a model's log stands."""

    def save_policy(self, policy: Policy) -> None:
        """Keep a policy."""

    def save_baseline(self, digest: str, document: str) -> None:
        """Keep a baseline."""

    def lock_progress(self, model: str) -> Progress:
        """Lock a model against other processing and return how far it has come."""

    def save_progress(self, model: str, progress: Progress) -> None:
        """Keep how far processing has come."""

    def save_window(self, model: str, window: StoredWindow) -> None:
        """Keep a window."""

    def count_fresh_label(self, model: str, prediction_seqs: Sequence[int]) -> None:
        """Count labels to the closed windows that their rows are in."""

    def save_episode(self, model: str, episode: Episode) -> None:
        """Keep an episode."""

    def save_decision(self, decision: Decided) -> None:
        """Keep a decision."""

    def forget(self, model: str, *, keep_rows: int) -> int:
        """Delete the oldest processed rows beyond keep_rows, and labels as old as they are; return how many rows."""


class Transactions(Protocol):
    """Opens transactions."""

    def read(self) -> AbstractContextManager[Reader]:
        """Open one that only reads."""

    def write(self) -> AbstractContextManager[Writer]:
        """Open one that commits at its end, or undoes everything when something is raised."""


class RegistryPort(Protocol):
    """What drift asks the registry."""

    def policies(self) -> Sequence[Policy]:
        """Return the policies of all models. Raise Unavailable when the registry is away."""

    def baseline(self, model: str, digest: str) -> str | None:
        """Return the baseline in a version's bundle; None when it has none. Raise Unavailable."""


class TrainingPort(Protocol):
    """What drift tells training."""

    def command(self, decision: Decided) -> str:
        """Deliver a retrain command, once whatever happens; return the run's id.

        Raises:
            Unavailable, Overloaded: try again.
            ModelyardError: training refused it for good.
        """
