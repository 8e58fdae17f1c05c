"""The entry point of a training job: ``python -m modelyard_trainer.main job.json``.

Exit code 0 when a version was handed over, 1 when the run failed with a reason, 143 when it was told to end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from modelyard_client import DriftClient, RegistryClient, TrainingClient
from modelyard_common.clock import SystemClock
from modelyard_common.errors import ModelyardError
from modelyard_common.identity import Identity
from modelyard_common.logs import configure_logging, get_logger
from modelyard_common.process import log_last_words
from modelyard_common.tracing import configure_tracing, shutdown_tracing, span
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.training_v1 import JobSpec
from pydantic import ValidationError

from modelyard_trainer.context import Reporter, RunContext
from modelyard_trainer.errors import Cancelled
from modelyard_trainer.tracker import MlflowTracker

__all__ = ["main"]

_log = get_logger(__name__)


def main() -> None:
    """Run the job that the first argument, or ``MODELYARD_JOB``, names."""
    configure_logging(Identity("trainer"))
    log_last_words()
    signal.signal(signal.SIGTERM, _cancel)
    path = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODELYARD_JOB", "")
    try:
        job = JobSpec.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as exc:
        _log.error("job.unreadable", error=exc)
        sys.exit("the job file cannot be read: name it as the first argument")
    identity = Identity("trainer", job.environment)
    configure_logging(identity)
    # Whether the trace is recorded was decided where it began.
    configure_tracing(identity, endpoint=job.otlp_endpoint, ratio=0.0)
    try:
        code = _traced(job)
    finally:
        shutdown_tracing()
    sys.exit(code)


def _traced(job: JobSpec) -> int:
    attributes = {"modelyard.model": job.model, "modelyard.run": job.run}
    with span("run", kind="consumer", parent=job.traceparent, attributes=attributes) as its:
        code = _run(job)
        if code:
            its.failed(f"exit code {code}")
        return code


def _cancel(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise Cancelled


def _run(job: JobSpec) -> int:
    token_file = Path(job.token_file) if job.token_file else None
    work_dir = Path(job.work_dir)
    training = TrainingClient(job.training_url, token_file=token_file, timeout_s=30.0)
    termination_log = Path(job.termination_log) if job.termination_log else None
    reporter = Reporter(training, job.run, work_dir / "exit.json", termination_log=termination_log)
    try:
        # Before the tracker, whose thread must not import at the same time what this one does.
        from modelyard_trainer.pipeline import run  # noqa: PLC0415  # slow, and its failure is a reason to report

        context = RunContext(
            job=job,
            spec=ManagedModelSpec.model_validate(job.spec),
            work_dir=work_dir,
            training=training,
            registry=RegistryClient(job.registry_url, token_file=token_file, timeout_s=30.0),
            drift=DriftClient(job.drift_url, token_file=token_file, timeout_s=30.0) if job.drift_url else None,
            tracker=MlflowTracker(job.mlflow_url, run=job.run, token_file=token_file),
            reporter=reporter,
            clock=SystemClock(),
        )
        run(context)
    except Cancelled:
        _log.warning("run.cancelled")
        return 143
    except ModelyardError as exc:
        _log.error("run.failed", error=exc)
        reporter.failed(exc.message)
        return 1
    except MemoryError:
        reporter.failed("the job ran out of memory: raise spec.train.resources.memory, or learn from fewer rows")
        return 1
    except Exception as exc:
        _log.error("run.crashed", error=exc)
        reporter.failed(f"the training job crashed with {type(exc).__name__}; its log says where")
        return 1
    finally:
        reporter.close()
    return 0


if __name__ == "__main__":
    main()
