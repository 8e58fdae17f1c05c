"""What the tests of training share: fakes of its peers and of a launcher, a migrated database, all use cases wired."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.errors import Unavailable
from modelyard_common.testing import FakeClock
from modelyard_common.testing.databases import *  # noqa: F403  # fixtures: both databases
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.specs import training_digest
from modelyard_training.adapters.store import SqlTransactions
from modelyard_training.domain.datasets import Dataset
from modelyard_training.domain.ports import Job, KnownModel, LogPage
from modelyard_training.domain.runs import Run, State, Trigger
from modelyard_training.domain.supervision import Policy, Presence, Sighting
from modelyard_training.usecases.cancel import Cancel
from modelyard_training.usecases.fire_schedules import FireSchedules
from modelyard_training.usecases.observe import Addresses, Observe
from modelyard_training.usecases.reconcile_specs import ReconcileSpecs
from modelyard_training.usecases.report import TakeReport
from modelyard_training.usecases.submit import Submit
from modelyard_training.usecases.tick import Tick

sys.path.insert(0, str(Path(__file__).parent))  # test modules share the fakes beside them

DIGEST = "sha256:" + "d" * 64
"""Of a dataset version that the fixtures know."""

_NUMBERS = itertools.count(1)


def spec_document(**changes: Any) -> dict[str, Any]:
    """Return a small valid spec as it is written, with top-level fields replaced."""
    return {
        "task": "classification",
        "data": {"source": {"uri": f"dataset://{DIGEST}"}, "target": "up"},
        "train": {"recipe": {"estimator": "decision_tree"}, "timeout": "10m"},
    } | changes


class FakeModels:
    """A registry in memory."""

    def __init__(self) -> None:
        self.known: dict[str, KnownModel] = {}
        self.away = False

    def put(self, name: str, *, champion: str | None = None, **changes: Any) -> KnownModel:
        """Apply a manifest."""
        written = spec_document(**changes)
        spec = ManagedModelSpec.model_validate(written)
        self.known[name] = KnownModel(name, str(training_digest(spec)), spec, written, champion)
        return self.known[name]

    def delete(self, name: str) -> None:
        """Delete a model; the registry still knows that it was."""
        self.known[name] = replace(self.known[name], deleted=True)

    def all(self) -> Sequence[KnownModel]:
        self._answer()
        return [model for model in self.known.values() if not model.deleted]

    def one(self, name: str) -> KnownModel | None:
        self._answer()
        return self.known.get(name)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("registry cannot be reached")


class FakeLabels:
    """Drift's labels in memory."""

    def __init__(self) -> None:
        self.seq = 0
        self.away = False

    def newest_seq(self, model: str) -> int:
        del model
        if self.away:
            raise Unavailable("drift cannot be reached")
        return self.seq


class FakeLauncher:
    """Launches nothing; tests say what its processes do. It keeps the port's law: an attempt starts once."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, int], Job] = {}
        self.sightings: dict[tuple[str, int], Sighting] = {}
        self.launches: list[tuple[str, int]] = []
        self.terminated: list[str] = []
        self.killed: list[str] = []
        self.tidied: list[str] = []
        self.results: dict[tuple[str, int], dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.refuse: Exception | None = None
        self.obedient = True

    def launch(self, job: Job) -> None:
        if self.refuse is not None:
            raise self.refuse
        key = (job.run, job.attempt)
        if key in self.sightings:
            return
        self.jobs[key] = job
        self.launches.append(key)
        self.sightings[key] = Sighting(Presence.ALIVE)

    def sight(self, run: str, attempt: int) -> Sighting:
        return self.sightings.get((run, attempt), Sighting(Presence.ABSENT))

    def terminate(self, run: str, attempt: int) -> None:
        self.terminated.append(run)
        if self.obedient:
            self.sightings[run, attempt] = Sighting(Presence.KILLED, -15, "SIGTERM")

    def kill(self, run: str, attempt: int) -> None:
        self.killed.append(run)
        self.sightings[run, attempt] = Sighting(Presence.KILLED, -9, "SIGKILL")

    def result(self, run: str, attempt: int) -> Mapping[str, Any] | None:
        return self.results.get((run, attempt))

    def log(self, run: str, *, offset: int = 0, limit_bytes: int = 1 << 20) -> LogPage:
        data = self.logs.get(run, "").encode()
        start = max(0, len(data) + offset) if offset < 0 else offset
        piece = data[start : start + limit_bytes]
        return LogPage(piece.decode(), start + len(piece))

    def tidy(self, run: str) -> None:
        self.tidied.append(run)

    def check(self) -> str | None:
        return None

    def end(self, run: str, attempt: int = 1, *, code: int = 0) -> None:
        """Let a process end by itself."""
        self.sightings[run, attempt] = Sighting(Presence.ENDED, code)

    def lose(self, run: str, attempt: int = 1) -> None:
        """Let a process vanish."""
        self.sightings[run, attempt] = Sighting(Presence.KILLED)


@dataclass
class Yard:
    """All use cases over one database and the fakes."""

    transactions: SqlTransactions
    clock: FakeClock
    models: FakeModels
    labels: FakeLabels
    launcher: FakeLauncher
    ended: list[Run] = field(default_factory=list)
    max_running: int = 1
    max_queued: int = 5

    def __post_init__(self) -> None:
        self.submit = Submit(
            self.transactions,
            self.models,
            self.labels,
            self.clock,
            lambda _: f"run-{next(_NUMBERS):06d}",
            self.max_queued,
            lambda: None,
        )
        self.cancel = Cancel(self.transactions, self.clock, self.ended.append, lambda: None)
        self.report = TakeReport(self.transactions, self.clock, self.ended.append, lambda: None)
        addresses = Addresses("http://t", "http://r", "http://d", "http://m")
        self.observe = Observe(
            self.transactions, self.launcher, self.clock, addresses, Policy(grace_s=5.0), self.ended.append
        )
        self.tick = Tick(self.transactions, self.observe, self.clock, self.max_running, self.ended.append)
        self.specs = ReconcileSpecs(self.transactions, self.models, self.submit, self.cancel, self.clock)
        self.schedules = FireSchedules(self.transactions, self.models, self.submit, self.clock)

    def run(self, run_id: str) -> Run:
        """Return a run that must be there."""
        with self.transactions.read() as reader:
            found = reader.run(run_id)
        assert found is not None
        return found

    def runs(self, model: str | None = None) -> list[Run]:
        """Return all runs, oldest first."""
        with self.transactions.read() as reader:
            return list(reversed(reader.runs(model=model)))

    def state(self, run_id: str) -> State:
        """Return where a run stands."""
        return self.run(run_id).state

    def restarted(self) -> Yard:
        """Return the service after a restart: same database, same machine, nothing in memory."""
        return Yard(self.transactions, self.clock, self.models, self.labels, self.launcher)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 3, 2, 12, tzinfo=UTC))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'training.db'}")
    upgrade(found, "modelyard_training")
    yield found
    found.close()


@pytest.fixture
def yard(database: Database, clock: FakeClock) -> Yard:
    made = Yard(SqlTransactions(database), clock, FakeModels(), FakeLabels(), FakeLauncher())
    with made.transactions.write() as store:
        store.add_dataset(Dataset(DIGEST, 10, 100, (), clock.now()))
    return made


@pytest.fixture
def make_spec() -> Callable[..., dict[str, Any]]:
    return spec_document


@pytest.fixture
def make_launcher() -> Callable[[], FakeLauncher]:
    return FakeLauncher


def end_jobs_in(root: Path) -> None:
    """Kill the process groups of all jobs under a local launcher's root; nobody else's, whatever a record says."""
    for record in root.glob("*/attempt-*/process.json"):
        document = json.loads(record.read_text())
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if document["pid"] > 1 and psutil.Process(document["pid"]).create_time() == document["create_time"]:
                os.killpg(document["pid"], signal.SIGKILL)


@pytest.fixture
def end_jobs() -> Callable[[Path], None]:
    return end_jobs_in


@pytest.fixture
def make_run(clock: FakeClock) -> Callable[..., Run]:
    def make(**changes: Any) -> Run:
        values: dict[str, Any] = {
            "id": "run-0001",
            "model": "m",
            "trigger": Trigger("manual"),
            "spec": spec_document(),
            "training_digest": DIGEST,
            "timeout_s": 600.0,
            "created": clock.now(),
        }
        return Run(**(values | changes))

    return make
