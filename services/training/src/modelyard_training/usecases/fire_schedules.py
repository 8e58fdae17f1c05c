"""Fire cron triggers: one run for a due time, however many replicas look at the clock.

The run's claim is the due time, and the trigger's row is locked when it is moved on: two replicas make one run, and a
service that is killed in between makes none twice. Due times that passed while nobody looked are made up for by one
run. A trigger whose last run is still going is skipped, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from modelyard_common.clock import Clock
from modelyard_common.errors import Conflict, ModelyardError, NotFound, Overloaded, Unavailable
from modelyard_common.logs import get_logger

from modelyard_training.domain.ports import Claim, Models, Transactions
from modelyard_training.domain.runs import Trigger
from modelyard_training.domain.schedules import Schedule, advance
from modelyard_training.usecases.submit import Submit

__all__ = ["FireSchedules"]

log = get_logger(__name__)

# Long enough not to press a peer that comes back, short against a cron line's minute.
_RETRY_S = 15.0


@dataclass(frozen=True, slots=True)
class FireSchedules:
    """Starts what is due."""

    transactions: Transactions
    models: Models
    submit: Submit
    clock: Clock

    def __call__(self) -> None:
        """Look once at all triggers."""
        with self.transactions.read() as reader:
            due = [schedule for schedule in reader.schedules() if schedule.due(self.clock.now())]
        for schedule in due:
            self._fire(schedule)

    def _fire(self, schedule: Schedule) -> None:
        run: str | None = None
        try:
            run, note = self._run(schedule)
        except (Unavailable, Overloaded) as exc:
            self._later(schedule, str(exc))
            return
        except (Conflict, NotFound) as exc:
            note = f"skipped: {exc}"
        except ModelyardError as exc:
            note = f"failed: {exc}"
        with self.transactions.write() as store:
            if store.lock_schedule(schedule.model, schedule.cron) == schedule:
                store.save_schedule(advance(schedule, self.clock.now(), run=run, note=note))
        log.info("schedule.fired", model=schedule.model, cron=schedule.cron, run=run, note=note)

    def _run(self, schedule: Schedule) -> tuple[str | None, str]:
        with self.transactions.read() as reader:
            going = [
                run
                for run in reader.live_runs(schedule.model)
                if run.trigger.kind == "cron" and run.id == schedule.last_run
            ]
        if going:
            return None, f"skipped: run {going[0].id} is still going"
        model = self.models.one(schedule.model)
        if model is None or model.deleted:
            raise NotFound(f"there is no model {schedule.model!r}")
        claim = Claim(f"cron/{schedule.model}/{schedule.cron}/{schedule.next_due.isoformat()}")
        reason = f"cron {schedule.cron}, due {schedule.next_due:%Y-%m-%d %H:%M} UTC"
        submitted = self.submit.enqueue(model, Trigger("cron", reason), (claim,))
        return submitted.run.id, "started"

    def _later(self, schedule: Schedule, reason: str) -> None:
        retry = replace(schedule, note=f"waiting: {reason}", retry_at=self.clock.now() + timedelta(seconds=_RETRY_S))
        with self.transactions.write() as store:
            if store.lock_schedule(schedule.model, schedule.cron) == schedule:
                store.save_schedule(retry)
