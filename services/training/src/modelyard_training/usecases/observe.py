"""Observe one run: look at its process, decide, do, record.

Order of effects: what is decided is recorded before anything is launched, and launching is idempotent; so a service
that is killed between any two lines goes on from the same state. The run is read again under a lock before it is
changed; if it has changed meanwhile nothing is done, and the next look decides anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tracing import start, within
from modelyard_contracts.training_v1 import JobSpec, RunReport, RunTrigger
from pydantic import ValidationError

from modelyard_training.domain.ports import Job, Launcher, Transactions
from modelyard_training.domain.runs import Run, State, absorb, ask_to_stop, begin, finish, mark_running, settle
from modelyard_training.domain.supervision import Do, Policy, Sighting, Step, next_step
from modelyard_training.usecases.report import report_from_wire

__all__ = ["Addresses", "Observe"]

log = get_logger(__name__)

# Enough for a Python traceback; the whole log is at /v1/runs/{id}/logs.
_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a job finds the platform, and who else hears of it."""

    training_url: str
    registry_url: str
    drift_url: str | None
    mlflow_url: str
    token_file: str | None = None
    otlp_endpoint: str | None = None
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Observe:
    """Brings one run a step further."""

    transactions: Transactions
    launcher: Launcher
    clock: Clock
    addresses: Addresses
    policy: Policy
    ended: Callable[[Run], None]

    def __call__(self, run_id: str) -> None:
        """Look at a run that has begun, and do what is to be done next."""
        with self.transactions.read() as reader:
            run = reader.run(run_id)
        if run is None or run.state is State.PENDING or run.settled:
            return
        with within(run.traceparent):
            seen = self.launcher.sight(run.id, run.attempts)
            step = next_step(run, seen, now=self.clock.now(), policy=self.policy)
            self._do(run, seen, step)

    def _do(self, run: Run, seen: Sighting, step: Step) -> None:
        match step.do:
            case Do.LAUNCH:
                self._launch(run)
            case Do.TERMINATE:
                self.launcher.terminate(run.id, run.attempts)
            case Do.KILL:
                self.launcher.kill(run.id, run.attempts)
            case Do.NOTE_RUNNING:
                self._record(run, mark_running(run, step.reason))
            case Do.STOP:
                self._record(run, ask_to_stop(run, step.state or State.FAILED, self.clock.now(), step.reason))
            case Do.LAUNCH_AGAIN:
                self._end(run, seen, step)
            case Do.FINISH:
                self._end(run, seen, step)
            case Do.SETTLE:
                self._settle(run)
            case Do.NOTHING:
                pass

    def _launch(self, run: Run) -> None:
        its = start("launch run", attributes={"modelyard.run": run.id, "modelyard.attempt": run.attempts})
        try:
            self.launcher.launch(self._job(run))
        except Unavailable as exc:
            # The span is left as it is, and so never seen: it is tried again several times a second.
            log.warning("run.launch_delayed", run=run.id, attempt=run.attempts, reason=str(exc))
            self._record(run, replace(run, reason=f"cannot be launched yet: {exc}"))
        except ModelyardError as exc:
            its.failed(type(exc).__name__)
            its.end()
            self._record(run, finish(run, State.FAILED, self.clock.now(), f"could not be launched: {exc}"))
        else:
            its.end()
            log.info("run.launched", run=run.id, model=run.model, attempt=run.attempts)
            # From here on it is known to have been launched: if it is gone at the next look, somebody removed it.
            self._record(run, mark_running(run))

    def _end(self, run: Run, seen: Sighting, step: Step) -> None:
        """End a run whose process is gone, or begin again; a result that the job left behind goes before both."""
        now = self.clock.now()
        left = self._left_behind(run)
        if left is not None:
            self._record(run, left)
        elif step.do is Do.LAUNCH_AGAIN:
            # Whatever the lost process had started must not run beside its successor.
            self.launcher.kill(run.id, run.attempts)
            again = replace(begin(run, now), reason="launched again: its process was lost")
            if self._record(run, again):
                log.warning("run.lost", run=run.id, model=run.model, attempt=run.attempts, detail=seen.detail)
                self._launch(again)
        else:
            state = step.state or State.FAILED
            reason = self._with_tail(run, step.reason) if state is State.FAILED else step.reason
            self._record(run, finish(run, state, now, reason))

    def _left_behind(self, run: Run) -> Run | None:
        """Return the run ended by the final report that its process could not deliver, if it left one."""
        document = self.launcher.result(run.id, run.attempts)
        if document is None:
            return None
        try:
            report = report_from_wire(RunReport.model_validate(document))
        except (ValidationError, ModelyardError) as exc:
            log.warning("run.result_unreadable", run=run.id, kind=type(exc).__name__)
            return None
        # It was written last, whatever was delivered of the reports before it.
        after = absorb(run, replace(report, seq=max(report.seq, run.report_seq + 1)), self.clock.now())
        return after if after.over else None

    def _settle(self, run: Run) -> None:
        self.launcher.tidy(run.id)
        self._record(run, settle(run))

    def _record(self, before: Run, after: Run) -> bool:
        """Save what was decided, unless the run has changed since it was looked at; return whether it was saved."""
        if after == before:
            return False
        with self.transactions.write() as store:
            if store.lock_run(before.id) != before:
                return False
            store.save_run(after)
        if after.over and not before.over:
            log.info("run.ended", run=after.id, model=after.model, state=str(after.state))
            self.ended(after)
        return True

    def _with_tail(self, run: Run, reason: str) -> str:
        tail = self.launcher.log(run.id, offset=-_TAIL_BYTES, limit_bytes=_TAIL_BYTES).text.strip()
        return f"{reason}; the end of its log:\n{tail}" if tail else reason

    def _job(self, run: Run) -> Job:
        resources = run.spec.get("train", {}).get("resources", {})
        return Job(
            run=run.id,
            attempt=run.attempts,
            document=self._document(run),
            cpu=str(resources.get("cpu", "1")),
            memory=str(resources.get("memory", "2Gi")),
            timeout_s=self._left_s(run),
        )

    def _left_s(self, run: Run) -> float:
        if run.started is None:
            return run.timeout_s
        return max(0.0, run.timeout_s - (self.clock.now() - run.started).total_seconds())

    def _document(self, run: Run) -> Mapping[str, Any]:
        spec = JobSpec(
            run=run.id,
            model=run.model,
            spec=dict(run.spec),
            training_digest=run.training_digest,
            trigger=RunTrigger(kind=run.trigger.kind, reason=run.trigger.reason, episode=run.trigger.episode),
            until_label_seq=run.until_label_seq,
            training_url=self.addresses.training_url,
            registry_url=self.addresses.registry_url,
            drift_url=self.addresses.drift_url,
            mlflow_url=self.addresses.mlflow_url,
            token_file=self.addresses.token_file,
            timeout_s=self._left_s(run),
            work_dir="",
            traceparent=run.traceparent,
            otlp_endpoint=self.addresses.otlp_endpoint,
            environment=self.addresses.environment,
        )
        return spec.model_dump(mode="json")
