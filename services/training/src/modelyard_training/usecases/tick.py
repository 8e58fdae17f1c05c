"""One turn of the supervisor: look at every run that has begun, then begin those that wait, within the bound.

It is woken by whatever changes a run, and turns by itself several times a second, since a process that dies tells
nobody. A run that cannot be looked at does not keep the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger
from modelyard_contracts.refs import DatasetRef, RefError

from modelyard_training.domain.ports import Reader, Transactions
from modelyard_training.domain.runs import ACTIVE, Run, State, begin, finish
from modelyard_training.usecases.observe import Observe

__all__ = ["Tick"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tick:
    """Keeps the runs going."""

    transactions: Transactions
    observe: Observe
    clock: Clock
    max_running: int
    """How many runs may be at work at once."""
    ended: Callable[[Run], None]

    def __call__(self) -> None:
        """Take one turn."""
        with self.transactions.read() as reader:
            begun = [run.id for run in reader.unfinished()]
            queued = reader.count(State.PENDING)
        for run_id in begun:
            self._look(run_id)
        if queued:
            for run_id in self._begin_waiting():
                self._look(run_id)

    def _look(self, run_id: str) -> None:
        try:
            self.observe(run_id)
        except (ModelyardError, OSError) as exc:
            log.warning("run.observe_failed", run=run_id, kind=type(exc).__name__, reason=str(exc))

    def _begin_waiting(self) -> list[str]:
        """Begin as many of the oldest waiting runs as there is room for; return those that are to be launched."""
        begun: list[str] = []
        refused: list[Run] = []
        with self.transactions.write() as store:
            store.lock_queue()
            room = self.max_running - store.count(*ACTIVE)
            now = self.clock.now()
            for run in store.waiting(self.max_running + 10):
                missing = _missing_dataset(store, run)
                if missing is not None:
                    failed = finish(run, State.FAILED, now, missing)
                    store.save_run(failed)
                    refused.append(failed)
                elif len(begun) < room:
                    store.save_run(begin(run, now))
                    begun.append(run.id)
        for run in refused:
            self.ended(run)
        return begun


def _missing_dataset(reader: Reader, run: Run) -> str | None:
    """Return what is wrong with the run's data source, when that can be known without a job."""
    uri = str(run.spec.get("data", {}).get("source", {}).get("uri", ""))
    if not uri.startswith("dataset:"):
        return None
    try:
        digest = DatasetRef.parse(uri).digest
    except RefError as exc:
        return f"spec.data.source.uri: {exc}"
    if reader.dataset(str(digest)) is None:
        return f"spec.data.source.uri: there is no dataset {digest}; upload it, then train again"
    return None
