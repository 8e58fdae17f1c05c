"""Constructs the drift service: the only module that knows all of its parts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from modelyard_client import RegistryClient, TrainingClient
from modelyard_common.app import create_app
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.db import Database
from modelyard_common.health import Health
from modelyard_common.tasks import StopSignal, Task

from modelyard_drift.adapters import metrics
from modelyard_drift.adapters.labelled import write_labelled
from modelyard_drift.adapters.pages import report_page
from modelyard_drift.adapters.peers import RegistryPolicies, TrainingCommands
from modelyard_drift.adapters.store import SqlTransactions
from modelyard_drift.api import events, findings, log
from modelyard_drift.api.services import DriftServices
from modelyard_drift.settings import DriftSettings
from modelyard_drift.usecases.browse import Browse
from modelyard_drift.usecases.build_report import BuildReport
from modelyard_drift.usecases.close_window import CloseWindow
from modelyard_drift.usecases.compare import Compare
from modelyard_drift.usecases.fetch_baseline import FetchBaseline
from modelyard_drift.usecases.fold_labels import FoldLabels
from modelyard_drift.usecases.ingest import Ingest
from modelyard_drift.usecases.ingest_labels import IngestLabels
from modelyard_drift.usecases.ports import Policy, RegistryPort, TrainingPort
from modelyard_drift.usecases.process import Process
from modelyard_drift.usecases.refresh_policies import RefreshPolicies
from modelyard_drift.usecases.request_retrain import RequestRetrain
from modelyard_drift.usecases.retain import Retain

__all__ = ["build"]

_IDLE_S = 1.0
_METRICS_S = 5.0
"""How old what metrics say may be: each look costs some reads a model, and Prometheus scrapes less often."""
_RECENT_WINDOWS = 5
"""Among so many the metrics look for one that was scored, and for one that has labels."""


def build(
    settings: DriftSettings,
    database: Database,
    *,
    clock: Clock | None = None,
    registry: RegistryPort | None = None,
    training: TrainingPort | None = None,
    background: bool = True,
) -> FastAPI:
    """Return the application; whoever serves it starts and stops its tasks.

    Args:
        settings: as read from the environment.
        database: migrated; closed with the application.
        clock: another one, for tests.
        registry: another source of policies and baselines, for tests.
        training: another receiver of commands, for tests.
        background: False leaves the work to whoever calls ``state.turn``.
    """
    clock = clock or SystemClock()
    registry_client = RegistryClient(settings.registry_url, token_file=settings.token_file)
    training_client = TrainingClient(settings.training_url, token_file=settings.token_file)
    registry = registry or RegistryPolicies(registry_client)
    training = training or TrainingCommands(training_client)
    transactions = SqlTransactions(database)
    baselines = FetchBaseline(transactions, registry)
    close_window = CloseWindow(settings.commands == "on", _new_id)
    process = Process(transactions, baselines, close_window, settings.chunk_rows)
    fold = FoldLabels(transactions, close_window, settings.chunk_rows)
    refresh = RefreshPolicies(transactions, registry)
    deliver = RequestRetrain(transactions, training)
    retain = Retain(transactions, settings.keep_rows)
    browse = Browse(transactions, process.notes)

    def turn(stop: StopSignal) -> None:
        process(stop)
        fold(stop)
        deliver()

    working = Task("processing", turn, _IDLE_S)
    tasks = [
        working,
        Task("policies", lambda _: working.wake() if refresh() else None, settings.refresh_s),
        Task("late-labels", lambda stop: fold(stop, overdue=True), _IDLE_S * 5),
        Task("retention", lambda _: retain(), settings.retention_s),
        Task("metrics", lambda _: _show(browse, transactions), _METRICS_S),
    ]
    exports = settings.data_dir / "exports"
    _empty(exports)
    services = DriftServices(
        ingest=Ingest(transactions, clock, working.wake),
        ingest_labels=IngestLabels(transactions, working.wake, settings.max_waiting),
        browse=browse,
        compare=Compare(transactions),
        build_report=BuildReport(transactions, browse, baselines),
        report_page=report_page,
        export_labelled=lambda model, until: _export(transactions, exports, model, until),
        counted_events=metrics.count_events,
        counted_labels=metrics.count_labels,
    )
    health = Health()
    health.add("database", database.check, critical=True)
    health.add("registry", refresh.check, critical=False)
    health.add("training", deliver.check, critical=False)
    return create_app(
        service="drift",
        settings=settings,
        routers=[events.router, log.router, findings.router],
        health=health,
        tasks=tasks if background else [],
        on_close=[registry_client.close, training_client.close, database.close],
        state={
            "drift": services,
            "turn": turn,
            "refresh": refresh,
            "fold": fold,
            "show": lambda: _show(browse, transactions),
        },
    )


def _new_id(kind: str) -> str:
    return f"{kind[:2]}-{secrets.token_hex(6)}"


def _empty(folder: Path) -> None:
    """Make the folder of exports; what lies there belonged to requests of a process that is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.parquet"):
        left.unlink(missing_ok=True)


def _export(transactions: SqlTransactions, folder: Path, model: str, until: int | None) -> Path:
    path = folder / f"{secrets.token_hex(8)}.parquet"
    with transactions.read() as store:
        log_state = store.log(model)
        newest = log_state.label_seq if log_state is not None else 0
        write_labelled(store.labelled(model, newest if until is None else until), path)
    return path


def _show(browse: Browse, transactions: SqlTransactions) -> None:
    with transactions.read() as store:
        policies = [policy for policy in store.policies() if not policy.deleted]
        decisions = store.decision_counts()
    metrics.show(_standing(browse, policy, decisions.get(policy.model, {})) for policy in policies)


def _standing(browse: Browse, policy: Policy, decisions: Mapping[str, int]) -> metrics.Standing:
    return metrics.Standing(
        policy=policy,
        status=browse.status(policy.model),
        windows=browse.windows(policy.model, before=None, limit=_RECENT_WINDOWS),
        episodes=next((number for number, _ in browse.episodes(policy.model, before=None, limit=1)), 0),
        decisions=decisions,
    )
