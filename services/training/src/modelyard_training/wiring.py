"""Constructs the training service: the only module that knows all of its parts."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI
from modelyard_client import DriftClient, RegistryClient
from modelyard_common.app import create_app
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.cluster_account import owner_reference
from modelyard_common.db import Database
from modelyard_common.errors import Unavailable
from modelyard_common.health import Health
from modelyard_common.logs import get_logger
from modelyard_common.tasks import Task

from modelyard_training.adapters import metrics
from modelyard_training.adapters.canonical import canonicalise
from modelyard_training.adapters.launchers.job_manifest import JobTemplate
from modelyard_training.adapters.launchers.local import LocalLauncher
from modelyard_training.adapters.peers import DriftLabels, RegistryModels
from modelyard_training.adapters.store import SqlReader, SqlTransactions
from modelyard_training.adapters.tables import FolderTables
from modelyard_training.api import datasets, runs
from modelyard_training.api.services import TrainingServices
from modelyard_training.domain.ports import Labels, Launcher, Models
from modelyard_training.domain.supervision import Policy
from modelyard_training.settings import TrainingSettings
from modelyard_training.usecases.cancel import Cancel
from modelyard_training.usecases.fire_schedules import FireSchedules
from modelyard_training.usecases.observe import Addresses, Observe
from modelyard_training.usecases.reconcile_specs import ReconcileSpecs
from modelyard_training.usecases.report import TakeReport
from modelyard_training.usecases.submit import Submit
from modelyard_training.usecases.tick import Tick
from modelyard_training.usecases.version_dataset import VersionDataset

__all__ = ["build", "job_template"]

log = get_logger(__name__)
_METRICS_S = 2.0
"""How old what metrics say of the tables may be; Prometheus scrapes less often."""


@dataclass(slots=True)
class _Bell:
    """Wakes the supervisor after a commit; the task is hung on once it exists."""

    task: Task | None = None

    def ring(self) -> None:
        """Start the supervisor's next turn now."""
        if self.task is not None:
            self.task.wake()


@dataclass(slots=True)
class _Contact:
    """How the last look at the registry went."""

    problem: str | None = "the registry has not been asked yet"

    def check(self) -> str | None:
        """Return what is wrong: a health check."""
        return self.problem


def build(
    settings: TrainingSettings,
    database: Database,
    *,
    clock: Clock | None = None,
    launcher: Launcher | None = None,
    models: Models | None = None,
    labels: Labels | None = None,
    background: bool = True,
) -> FastAPI:
    """Return the application; whoever serves it starts and stops its tasks.

    Args:
        settings: as read from the environment.
        database: migrated; closed with the application.
        clock: another one, for tests.
        launcher: another one than this machine's, for tests.
        models: another source of models than the registry, for tests.
        labels: another source of labels than drift, for tests.
        background: False leaves the work to whoever calls ``state.tick``, ``state.specs`` and ``state.schedules``.
    """
    clock = clock or SystemClock()
    registry = RegistryClient(settings.registry_url, token_file=settings.token_file)
    drift = DriftClient(settings.drift_url, token_file=settings.token_file)
    models = models or RegistryModels(registry)
    launcher = launcher or _launcher(settings, clock)
    transactions = SqlTransactions(database)
    tables = FolderTables(settings.data_dir / "datasets")
    bell, contact, ended = _Bell(), _Contact(), metrics.run_ended
    submit = Submit(transactions, models, labels or DriftLabels(drift), clock, _new_id, settings.max_queued, bell.ring)
    cancel = Cancel(transactions, clock, ended, bell.ring)
    policy = Policy(grace_s=settings.stop_grace_s, max_attempts=settings.max_attempts)
    observe = Observe(transactions, launcher, clock, _addresses(settings), policy, ended)
    tick = Tick(transactions, observe, clock, settings.max_running, ended)
    specs = ReconcileSpecs(transactions, models, submit, cancel, clock)
    schedules = FireSchedules(transactions, models, submit, clock)
    bell.task = Task("supervisor", lambda _: tick(), settings.look_s)
    tasks = [
        bell.task,
        Task("specs", lambda _: _follow(specs, contact), settings.specs_s),
        Task("schedules", lambda _: schedules(), settings.schedules_s),
        Task("metrics", lambda _: _show(database, clock), _METRICS_S),
    ]
    services = TrainingServices(
        transactions=transactions,
        submit=submit,
        cancel=cancel,
        report=TakeReport(transactions, clock, ended, bell.ring),
        version_dataset=VersionDataset(transactions, tables, canonicalise, clock, metrics.dataset_made),
        tables=tables,
        launcher=launcher,
        conversions=threading.BoundedSemaphore(settings.max_conversions),
    )
    health = Health()
    health.add("database", database.check, critical=True)
    health.add("launcher", launcher.check, critical=False)
    health.add("registry", contact.check, critical=False)
    return create_app(
        service="training",
        settings=settings,
        routers=[runs.router, datasets.router],
        health=health,
        tasks=tasks if background else [],
        on_close=[registry.close, drift.close, database.close],
        state={
            "training": services,
            "tick": tick,
            "specs": specs,
            "schedules": schedules,
            "show": lambda: _show(database, clock),
        },
    )


def _launcher(settings: TrainingSettings, clock: Clock) -> Launcher:
    if settings.launcher == "local":
        return LocalLauncher(
            settings.data_dir / "runs",
            command=settings.job_command,
            environment=settings.job_environment,
            niceness=settings.job_niceness,
        )
    # The client of the cluster takes a second to import, which a laptop need not wait for.
    from modelyard_common.cluster import Cluster  # noqa: PLC0415

    from modelyard_training.adapters.launchers.kubernetes import KubernetesLauncher  # noqa: PLC0415

    return KubernetesLauncher(
        Cluster.connect(settings.kubeconfig),
        namespace=settings.job_namespace,
        template=job_template(settings),
        logs=settings.data_dir / "logs",
        clock=clock,
        patience_s=settings.job_start_patience_s,
    )


def job_template(settings: TrainingSettings) -> JobTemplate:
    """Return what all Jobs of this installation have in common."""
    return JobTemplate(
        image=settings.job_image or "",
        command=settings.job_command if "job_command" in settings.model_fields_set else (),
        pull_policy=settings.job_pull_policy,
        pull_secrets=settings.job_pull_secrets,
        service_account=settings.job_service_account,
        token_secret=settings.job_token_secret,
        token_key=settings.job_token_key,
        environment=settings.pod_environment,
        secrets=settings.job_secrets,
        labels=settings.job_labels,
        node_selector=settings.job_node_selector,
        tolerations=settings.job_tolerations,
        disk=settings.job_disk,
        ttl_s=settings.job_ttl_s,
        grace_s=settings.stop_grace_s,
        owner=owner_reference(settings.job_namespace),
    )


def _addresses(settings: TrainingSettings) -> Addresses:
    return Addresses(
        training_url=settings.own_url,
        registry_url=settings.registry_url,
        drift_url=settings.drift_url,
        mlflow_url=settings.mlflow_url,
        token_file=str(settings.token_file.absolute()) if settings.token_file else None,
        otlp_endpoint=settings.otlp_endpoint,
        environment=settings.environment,
    )


def _new_id(now: datetime) -> str:
    """Return an id that sorts by time: milliseconds in hexadecimal, then chance."""
    return f"run-{int(now.timestamp() * 1000):011x}-{secrets.token_hex(4)}"


def _show(database: Database, clock: Clock) -> None:
    with database.read() as session:
        reader = SqlReader(session)
        oldest = next(iter(reader.waiting(1)), None)
        metrics.show_counts(reader.counts(), oldest=oldest, now=clock.now())
        models = [model.name for model in reader.models() if not model.deleted]
        metrics.show_models(models, reader.last_successes(), reader.schedules())


def _follow(specs: ReconcileSpecs, contact: _Contact) -> None:
    """Follow the registry; that it is away is a fact to show, not a failure of this service."""
    try:
        specs()
    except Unavailable as exc:
        if contact.problem is None:
            log.warning("registry.away", reason=str(exc))
        contact.problem = str(exc)
    else:
        contact.problem = None
