"""Constructs the registry: the only module that knows all of its parts."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from modelyard_client.drift import DriftClient
from modelyard_common.app import create_app
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.db import Database
from modelyard_common.errors import ModelyardError
from modelyard_common.health import Health
from modelyard_common.tasks import StopSignal, Task

from modelyard_registry.adapters import metrics, mlflow
from modelyard_registry.adapters.bundles import BundleCache
from modelyard_registry.adapters.evidence import DriftEvidence
from modelyard_registry.adapters.mlflow import Artifacts, MlflowRest
from modelyard_registry.adapters.mlflow_proxy import MlflowProxy
from modelyard_registry.adapters.model_mirror import MlflowMirror
from modelyard_registry.adapters.store import SqlTransactions
from modelyard_registry.api import models, promotions, proxy, routing, versions
from modelyard_registry.api.metrics import WATCHERS, show_verdicts_of
from modelyard_registry.api.services import RegistryState
from modelyard_registry.api.watchers import Watchers
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.usecases.advance_rollouts import AdvanceRollouts
from modelyard_registry.usecases.mirror_models import MirrorModels
from modelyard_registry.usecases.ports import EvidenceSource
from modelyard_registry.usecases.register_version import RegisterVersion

__all__ = ["build"]

_METRICS_S = 2.0
"""How old what metrics say of the tables may be; Prometheus scrapes less often."""


@dataclass(slots=True)
class _Bell:
    """What rings after a commit; the tasks are hung on once they exist."""

    watchers: Watchers
    mirror: Task | None = None

    def ring(self) -> None:
        """Wake the watches of this process and the mirror."""
        self.watchers.notify()
        if self.mirror is not None:
            self.mirror.wake()


def build(
    settings: RegistrySettings,
    database: Database,
    *,
    clock: Clock | None = None,
    http: httpx.Client | None = None,
    evidence: EvidenceSource | None = None,
    background: bool = True,
) -> FastAPI:
    """Return the application, with its tables in place; whoever serves it starts and stops its tasks.

    Args:
        settings: as read from the environment.
        database: migrated; closed with the application.
        clock: another one, for tests.
        http: another way to MLflow than the network, for tests.
        evidence: another source of rollout evidence than the drift service, for tests.
        background: False leaves rollouts and mirror to whoever calls ``state.advance`` and ``state.mirror``.
    """
    clock = clock or SystemClock()
    quick = http or mlflow.client(settings.mlflow_url, connect_s=1.0, read_s=2.0)
    http = http or mlflow.client(
        settings.mlflow_url, connect_s=settings.mlflow_connect_s, read_s=settings.mlflow_read_s
    )
    drift = DriftClient(settings.drift_url, token_file=settings.token_file, timeout_s=settings.evidence_timeout_s)
    rest = MlflowRest(http)
    bundles = BundleCache(
        settings.data_dir / "cache",
        Artifacts(rest),
        max_bytes=settings.max_bundle_bytes,
        may_be_pickled=lambda: settings.pickles_until is not None and clock.now().date() <= settings.pickles_until,
        fetched=metrics.BUNDLE_BYTES.inc,
    )
    bell = _Bell(Watchers(settings.max_watchers, WATCHERS.set))
    transactions = SqlTransactions(database, bell.ring)
    advance = AdvanceRollouts(transactions, evidence or DriftEvidence(drift), clock)
    mirror = MirrorModels(transactions, MlflowMirror(rest), clock)
    bell.mirror = Task("mirror", lambda stop: _mirror(stop, mirror), settings.mirror_interval_s)
    state = RegistryState(
        transactions=transactions,
        clock=clock,
        register_version=RegisterVersion(transactions, bundles, clock),
        bundles=bundles,
        watchers=bell.watchers,
        proxy=MlflowProxy(http, max_bytes=settings.proxy_max_bytes, deadline_s=settings.proxy_deadline_s),
        heartbeat_s=settings.watch_heartbeat_s,
        poll_s=settings.watch_poll_s,
    )
    rollouts = Task("rollouts", lambda stop: _advance(stop, advance), settings.rollout_interval_s)
    standing = metrics.Standing()

    def show() -> None:
        with transactions.read() as reader:
            standing.show(reader)
            metrics.MIRROR_PENDING.set(reader.mirror_pending())
            show_verdicts_of(event.model for event in reader.routing_snapshot())

    return create_app(
        service="registry",
        settings=settings,
        routers=[models.router, versions.router, promotions.router, routing.router, proxy.router],
        health=_health(database, MlflowRest(quick)),
        tasks=[rollouts, bell.mirror, Task("metrics", lambda _: show(), _METRICS_S)] if background else [],
        on_close=[bell.watchers.close, http.close, quick.close, drift.close, database.close],
        state={"registry": state, "advance": advance, "mirror": mirror, "show": show},
    )


def _health(database: Database, rest: MlflowRest) -> Health:
    def mlflow_answers() -> str | None:
        try:
            rest.ping()
        except ModelyardError as exc:
            return f"{exc}; bundles are served from the cache, new versions wait"
        return None

    health = Health()
    health.add("database", database.check, critical=True)
    health.add("mlflow", mlflow_answers, critical=False)
    return health


def _advance(stop: StopSignal, advance: AdvanceRollouts) -> None:
    # A step that ended may be followed by one whose evidence is there already.
    while advance() and not stop.is_set():
        pass


def _mirror(stop: StopSignal, mirror: MirrorModels) -> None:
    while mirror() and not stop.is_set():
        pass
