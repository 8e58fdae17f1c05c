"""What every step of a run holds: the job, the policy, the doors, and the voice that reports progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from modelyard_client import DriftClient, RegistryClient, TrainingClient
from modelyard_common.clock import Clock
from modelyard_common.errors import Conflict, ModelyardError, NotFound, Overloaded, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tracing import Span, span
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.training_v1 import TERMINAL_STATES, JobSpec, RunReport

from modelyard_trainer.errors import Cancelled

__all__ = ["Reporter", "RunContext", "Tracker", "patiently"]

_log = get_logger(__name__)
_PROGRESS_TIMEOUT_S = 2.0
_FINAL_PATIENCE_S = 600.0
_TERMINATION_LOG_BYTES = 4096
T = TypeVar("T")


def patiently(what: str, act: Callable[[], T], *, for_s: float) -> T:
    """Do something that may be unavailable for a while; give up after for_s seconds with the last error."""
    deadline = time.monotonic() + for_s
    pause_s = 0.2
    while True:
        try:
            return act()
        except (Unavailable, Overloaded) as exc:
            if time.monotonic() + pause_s > deadline:
                raise
            _log.warning("run.waiting", what=what, reason=exc.message, again_in_s=pause_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)


class Tracker(Protocol):
    """Keeps the experiment: parameters, metrics and the bundle's bytes. MLflow, or a folder in tests."""

    def track(self, folder: Path, manifest: BundleManifest, metrics: dict[str, float]) -> str:
        """Record a run and its bundle; return the tracker's id of the run."""


class Reporter:
    """Tells the control plane how the run goes.

    Progress is told once, without patience; the outcome is told until it is heard, and left behind in a file
    when nobody listens for ten minutes.
    """

    def __init__(
        self, client: TrainingClient, run: str, exit_file: Path, *, termination_log: Path | None = None
    ) -> None:
        self._client = client
        self._run = run
        self._exit_file = exit_file
        self._termination_log = termination_log
        self._seq = 0
        self._stage = "start"
        self._progress = 0.0
        self._span = ExitStack()
        self._its: Span | None = None

    def stage(self, stage: str, progress: float) -> None:
        """Say which stage begins, and how much of the run is behind it (0 to 1).

        Raises:
            Cancelled: the run is over. The signal that says so may come before anybody listens for it, and what the
                first process of a container does not listen for is lost.
        """
        self._stage, self._progress = stage, progress
        self.close()
        self._its = self._span.enter_context(span(f"run {stage}"))
        _log.info("run.stage", stage=stage, progress=progress)
        try:
            self._client.report(self._run, self._next(), timeout_s=_PROGRESS_TIMEOUT_S)
        except Conflict as exc:
            _log.warning("run.report_refused", stage=stage, reason=exc.message)
            if self._is_over():
                raise Cancelled from exc
        except ModelyardError as exc:
            _log.warning("run.report_lost", stage=stage, reason=exc.message)

    def _is_over(self) -> bool:
        try:
            return self._client.run(self._run).state in TERMINAL_STATES
        except ModelyardError:
            return False

    def succeeded(self, *, version: str, tracker_run: str, metrics: dict[str, float], evaluation: Evaluation) -> None:
        """Tell the outcome of a run that made a version."""
        self._stage, self._progress = "done", 1.0
        self._final(
            self._next().model_copy(
                update={
                    "outcome": "succeeded",
                    "version": version,
                    "mlflow_run_id": tracker_run,
                    "metrics": metrics,
                    "evaluation": evaluation,
                }
            )
        )

    def failed(self, reason: str) -> None:
        """Tell the outcome of a run that did not."""
        if self._its is not None:
            self._its.failed("RunFailed")
        self._final(self._next().model_copy(update={"outcome": "failed", "reason": reason}))

    def close(self) -> None:
        """End the span of the last stage; a second call does nothing."""
        self._span.close()

    def _next(self) -> RunReport:
        self._seq += 1
        return RunReport(seq=self._seq, stage=self._stage, progress=self._progress)

    def _final(self, report: RunReport) -> None:
        self.close()
        part = self._exit_file.with_suffix(".part")
        part.write_text(report.model_dump_json())
        part.replace(self._exit_file)
        if self._termination_log is not None:
            self._termination_log.write_text(_short(report))
        # A fresh model, so that every field counts as set and travels.
        whole = RunReport.model_validate(report.model_dump())
        try:
            patiently("final report", lambda: self._client.report(self._run, whole), for_s=_FINAL_PATIENCE_S)
        except (Conflict, NotFound) as exc:
            _log.warning("run.report_refused", reason=exc.message)


def _short(report: RunReport) -> str:
    """Return a report in at most 4,096 bytes: what the registry has as well is left out, then a reason is cut."""
    text = report.model_dump_json(exclude_unset=True)
    if len(text.encode()) > _TERMINATION_LOG_BYTES:
        lean = report.model_copy(update={"evaluation": None, "metrics": {}, "reason": report.reason[:500]})
        text = lean.model_dump_json(exclude_defaults=True)
    return text


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every step holds."""

    job: JobSpec
    spec: ManagedModelSpec
    work_dir: Path
    training: TrainingClient
    registry: RegistryClient
    drift: DriftClient | None
    tracker: Tracker
    reporter: Reporter
    clock: Clock

    @property
    def is_retraining(self) -> bool:
        """Whether labelled rows are asked for: a first run learns from the source alone."""
        return self.job.until_label_seq is not None
