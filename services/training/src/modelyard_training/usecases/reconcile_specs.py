"""Follow the registry: one run for every data and recipe that has none, schedules as the manifests have them.

Reconciled from what the registry has now, never from an event. While the registry is away nothing changes here:
a model is only taken for deleted when the registry says so of that very model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger
from modelyard_contracts.cron import Cron, CronError

from modelyard_training.domain.ports import KnownModel, Models, Store, Transactions
from modelyard_training.domain.runs import Trigger
from modelyard_training.domain.schedules import Schedule, next_after
from modelyard_training.usecases.cancel import Cancel
from modelyard_training.usecases.submit import Submit, spec_claim

__all__ = ["ReconcileSpecs"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReconcileSpecs:
    """Brings runs and schedules in line with the manifests."""

    transactions: Transactions
    models: Models
    submit: Submit
    cancel: Cancel
    clock: Clock

    def __call__(self) -> None:
        """Compare once, and do what is missing. Raises Unavailable when the registry is away."""
        present = {model.name: model for model in self.models.all()}
        with self.transactions.read() as reader:
            known = {model.name: model for model in reader.models()}
        for name, model in present.items():
            self._guarded(name, partial(self._follow, model, known.get(name)))
        for name, before in known.items():
            if name not in present and not before.deleted:
                self._guarded(name, partial(self._retire, before))

    @staticmethod
    def _guarded(name: str, work: Callable[[], None]) -> None:
        """Do something about one model; that it fails must not keep the others waiting."""
        try:
            work()
        except ModelyardError as exc:
            log.warning("model.reconcile_failed", model=name, kind=type(exc).__name__, reason=str(exc))

    def _follow(self, model: KnownModel, before: KnownModel | None) -> None:
        if model != before:
            with self.transactions.write() as store:
                store.save_model(model)
                self._follow_schedules(store, model)
        if model.spec.paused:
            return
        claim = spec_claim(model)
        with self.transactions.read() as reader:
            has_run = reader.claimed(claim.key) is not None
        if not has_run:
            trigger = Trigger("spec", "its data or recipe has no run yet")
            submitted = self.submit.enqueue(model, trigger, (claim,))
            log.info("run.submitted", run=submitted.run.id, model=model.name, trigger="spec")

    def _follow_schedules(self, store: Store, model: KnownModel) -> None:
        wanted = {trigger.cron for trigger in model.spec.train.when if trigger.cron is not None}
        existing = {schedule.cron for schedule in store.schedules(model.name)}
        for line in existing - wanted:
            store.drop_schedule(model.name, line)
        for line in sorted(wanted - existing):
            try:
                due = next_after(Cron.parse(line), self.clock.now())
            except CronError as exc:
                log.warning("schedule.unreadable", model=model.name, cron=line, reason=str(exc))
                continue
            store.save_schedule(Schedule(model=model.name, cron=line, next_due=due))

    def _retire(self, before: KnownModel) -> None:
        """Stop what runs for a model that is deleted; its history stays."""
        now = self.models.one(before.name)
        if now is not None and not now.deleted:
            return
        gone = replace(now or before, deleted=True)
        with self.transactions.write() as store:
            live = [run.id for run in store.live_runs(before.name)]
            for schedule in store.schedules(before.name):
                store.drop_schedule(schedule.model, schedule.cron)
        for run_id in live:
            self.cancel(run_id, "its model was deleted")
        with self.transactions.write() as store:
            # Applied again, the model is trained again, unless the registry kept what an earlier run made.
            store.release(before.name, only_unsuccessful=gone.spec.deletion_policy == "retain")
            store.save_model(gone)
        log.info("model.retired", model=before.name, cancelled=len(live))
