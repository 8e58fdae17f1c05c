"""Constructs the inference service: the only module that knows all of its parts."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

from fastapi import FastAPI
from modelyard_client import DriftClient, RegistryClient
from modelyard_common.app import create_app
from modelyard_common.auth.guards import Authenticator
from modelyard_common.auth.tokens import TokenFile
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.health import Health
from modelyard_common.tasks import StopSignal, Task

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.bundles import BundleCache
from modelyard_inference.adapters.columnar import ColumnarProcess
from modelyard_inference.adapters.event_sender import DeadLetters, EventSender
from modelyard_inference.adapters.explain_metrics import PrometheusExplainObserver
from modelyard_inference.adapters.isolated import IsolatedRuntimes
from modelyard_inference.adapters.isolated_process import SideContainer, SpawnedProcess
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.adapters.registry_watch import RegistryWatch
from modelyard_inference.adapters.reports import RuntimeReports
from modelyard_inference.adapters.routing_tables import RoutingFile
from modelyard_inference.adapters.runtimes import ChosenRuntimes, InProcess, RemoteServers
from modelyard_inference.adapters.totals import totals_of
from modelyard_inference.api import admin, explain, repository, scoring, triton, v1, v2
from modelyard_inference.api.errors import edge_error
from modelyard_inference.api.front import Bounds, Front
from modelyard_inference.api.grpc.server import GrpcServer
from modelyard_inference.api.hot import HotPath
from modelyard_inference.api.openapi import typed_openapi
from modelyard_inference.api.services import InferenceServices, SpoolView
from modelyard_inference.domain.ports import Runtimes
from modelyard_inference.settings import InferenceSettings, environment_beside
from modelyard_inference.usecases.batching import Batching, Limits
from modelyard_inference.usecases.explain import Explain, ExplainLimits
from modelyard_inference.usecases.judge_candidate import JudgeCandidate
from modelyard_inference.usecases.lifecycle import Lifecycle
from modelyard_inference.usecases.predict import Predict
from modelyard_inference.usecases.serving import ServedModels
from modelyard_inference.usecases.shadow import Shadow

__all__ = ["build"]

_EXPLANATIONS_WAITING = 8
"""Requests for explanations that may wait for their thread; each may take a second."""
_NICENESS = 10
"""Of the thread that explains: where there is no core to spare, predictions go first."""
_DRIFT_TIMEOUT_S = 5.0
"""Below the time that a task gets to end: a drift that hangs does not hold up a shutdown."""


class _Bell:
    """Wakes a task that is made later."""

    def __init__(self) -> None:
        self.task: Task | None = None

    def ring(self) -> None:
        """Start the task's next round now."""
        if self.task is not None:
            self.task.wake()


def build(settings: InferenceSettings, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; whoever serves it starts and stops its tasks.

    Raises:
        Conflict: another process uses the same data_dir.
    """
    clock = clock or SystemClock()
    home = settings.home
    registry = RegistryClient(settings.registry_url, token_file=settings.token_file)
    follower = RegistryClient(settings.registry_url, token_file=settings.token_file)
    drift = DriftClient(settings.drift_url, token_file=settings.token_file, timeout_s=_DRIFT_TIMEOUT_S)

    spool = PayloadSpool(home / "spool", max_bytes=settings.spool_max_bytes, segment_bytes=settings.spool_segment_bytes)
    sender = EventSender(
        spool,
        drift,
        DeadLetters(home / "spool" / "refused.jsonl"),
        source=settings.instance,
        linger_s=settings.spool_linger_s,
        flush_s=settings.flush_s,
    )
    spool.appended = sender.wake

    report_bell, lifecycle_bell = _Bell(), _Bell()
    reports = RuntimeReports(registry, settings.instance, report_bell.ring)
    observer = metrics.PrometheusObserver()
    served = ServedModels()
    shelf = RoutingFile(home / "routing.json")
    isolated = _isolated(settings)
    bundles = BundleCache(home / "bundles", registry, most=settings.cached_bundles)
    lifecycle = Lifecycle(
        served=served,
        bundles=bundles,
        runtimes=_runtimes(settings, isolated),
        reports=reports,
        shelf=shelf,
        clock=clock,
        kept=settings.kept_versions,
        breaker_failures=settings.breaker_failures,
        patience_s=settings.start_patience_s,
    )
    lifecycle.restore(shelf.load())
    watch = RegistryWatch(
        follower,
        lifecycle,
        clock=clock,
        changed=lifecycle_bell.ring,
        poll_s=settings.poll_s,
        resync_s=settings.resync_s,
    )

    lane, candidate_lane, explain_lane = _lanes(settings)
    judge = JudgeCandidate(spool, observer, reports)
    shadow = Shadow(
        lane=candidate_lane,
        sink=spool,
        judge=judge,
        observer=observer,
        clock=clock,
        max_rows=settings.shadow_rows,
        timeout_s=settings.timeout_s * settings.candidate_share,
    )
    predict = Predict(
        served=served,
        shadow=shadow,
        judge=judge,
        observer=observer,
        clock=clock,
        new_id=_ids(),
        champions=Batching(lane=lane, sink=spool, observer=observer, clock=clock, limits=_limits(settings)),
        candidates=Batching(
            lane=candidate_lane, sink=spool, observer=observer, clock=clock, limits=_limits(settings), inline=False
        ),
        candidate_share=settings.candidate_share,
    )
    table_lane = ThreadLane("tables", threads=1, depth=settings.max_concurrent)
    tables = ColumnarProcess(table_lane, most_rows=settings.max_rows, most_bytes=settings.max_body_bytes)
    front = Front(predict, served, clock, _bounds(settings), observer)

    def show(stop: StopSignal) -> None:
        del stop
        state = spool.state
        metrics.SPOOL_BYTES.set(state.size_bytes)
        metrics.SPOOL_PENDING.set(state.pending_bytes)
        metrics.SHADOW_WAITING.set(shadow.waiting_rows)
        age_s = watch.age_s
        metrics.ROUTING_AGE.set(-1 if age_s is None else age_s)
        metrics.SPOOL_LIMIT.set(settings.spool_max_bytes)
        servings = served.all()
        metrics.show_serving(servings, served.waiting)
        metrics.show_lanes(lane, candidate_lane, explain_lane)
        loaded = [(one.routing.model, two.version.number) for one in servings for two in one.loaded]
        observer.forget_unloaded(loaded, clock.monotonic())

    # Models that were in force before a restart serve at once, also while the registry is away.
    lifecycle_bell.task = Task("lifecycle", lambda _: lifecycle.reconcile(), 0.5)
    report_bell.task = Task("reports", reports.deliver, 2.0)
    tasks = [
        lifecycle_bell.task,
        isolated.task(),
        Task("registry-watch", watch.follow),
        report_bell.task,
        Task("shadow", shadow.work),
        Task("spool-sync", lambda _: spool.sync(), settings.spool_sync_s),
        Task("event-sender", sender.run),
        Task("gauges", show, 1.0),
    ]
    health = Health()
    health.add("models", lambda: lifecycle.unsettled or None, critical=True)
    for name, check in (
        ("routing", lambda: _stale(watch, settings.stale_after_s)),
        ("runtime", isolated.check),
        ("spool", spool.check),
        ("drift", sender.check),
    ):
        health.add(name, check, critical=False)
    services = InferenceServices(
        served=served,
        lifecycle=lifecycle,
        health=health,
        spool=lambda: _spool_view(spool),
        routing_age_s=lambda: watch.age_s,
        shadow_rows=lambda: shadow.waiting_rows,
        totals=totals_of,
        front=front,
        explain=Explain(
            served=served,
            bundles=bundles,
            lane=explain_lane,
            observer=PrometheusExplainObserver(),
            clock=clock,
            limits=ExplainLimits(settings.explain_rows, settings.explain_evaluations),
        ),
    )
    app = create_app(
        service="inference",
        settings=settings,
        routers=[repository.router, triton.router, v2.router, scoring.router, admin.router, explain.router, v1.router],
        health=health,
        tasks=tasks,
        on_close=[
            tables.close,
            table_lane.close,
            lane.close,
            candidate_lane.close,
            explain_lane.close,
            isolated.close,
            spool.close,
            registry.close,
            follower.close,
            drift.close,
        ],
        state={"inference": services},
        raw_routes=HotPath(front, tables).routes(),
        error_body=edge_error,
        companions=[_grpc_server(settings, front, served, lifecycle, health)],
    )
    app.openapi = typed_openapi(app, served)  # type: ignore[method-assign]  # FastAPI's way to extend it
    return app


def _isolated(settings: InferenceSettings) -> IsolatedRuntimes:
    if settings.runtime_socket is not None:
        return IsolatedRuntimes(SideContainer(settings.runtime_socket), call_s=settings.timeout_s)
    options = {
        "pyfunc": str(settings.runtime_pyfunc),
        "memory_bytes": str(settings.runtime_memory_bytes),
        "log_level": settings.log_level,
        "environment": settings.environment,
    }
    return IsolatedRuntimes(SpawnedProcess(options, environment_beside()), call_s=settings.timeout_s)


def _runtimes(settings: InferenceSettings, isolated: IsolatedRuntimes) -> Runtimes:
    here = InProcess()
    return ChosenRuntimes(
        {
            "onnx": here,
            "sklearn": here if settings.sklearn_in_process else isolated,
            "pyfunc": isolated,
            "remote": RemoteServers(settings.remote_hosts, call_s=settings.timeout_s),
        }
    )


def _lanes(settings: InferenceSettings) -> tuple[ThreadLane, ThreadLane, ThreadLane]:
    """Return threads for champions, for candidates and for explanations, so that none takes those of another."""
    return (
        ThreadLane("champions", threads=settings.workers, depth=settings.max_concurrent),
        ThreadLane("candidates", threads=settings.candidate_workers, depth=settings.max_concurrent),
        ThreadLane("explanations", threads=1, depth=_EXPLANATIONS_WAITING, niceness=_NICENESS),
    )


def _bounds(settings: InferenceSettings) -> Bounds:
    return Bounds(settings.timeout_s, settings.max_rows, settings.max_concurrent, settings.max_body_bytes)


def _limits(settings: InferenceSettings) -> Limits:
    return Limits(
        rows=settings.batch_rows,
        waiting=settings.max_concurrent,
        runs=settings.model_runs,
        inline_rows=settings.inline_rows,
    )


def _grpc_server(
    settings: InferenceSettings, front: Front, served: ServedModels, lifecycle: Lifecycle, health: Health
) -> GrpcServer:
    tokens = TokenFile(settings.tokens_file) if settings.auth == "token" and settings.tokens_file else None
    return GrpcServer(
        front,
        served,
        lifecycle,
        health,
        totals_of,
        Authenticator(tokens),
        host=settings.host,
        port=settings.grpc_port,
        grace_s=settings.grace_s,
    )


def _ids() -> Callable[[], str]:
    """Return what makes ids. They sort by time, which keeps drift's index narrow: milliseconds, then chance.

    They need not be secret, only different: a generator that is seeded once saves a system call a request.
    """
    chance = random.Random(secrets.randbits(256))
    return lambda: f"{time.time_ns() // 1_000_000:011x}-{chance.getrandbits(64):016x}"


def _stale(watch: RegistryWatch, after_s: float) -> str | None:
    age_s = watch.age_s
    if age_s is None:
        return watch.problem
    if age_s > after_s:
        return f"routing is {age_s:.0f} s old: {watch.problem or 'the registry is silent'}"
    return None


def _spool_view(spool: PayloadSpool) -> SpoolView:
    state = spool.state
    return SpoolView(
        pending_bytes=state.pending_bytes, size_bytes=state.size_bytes, dropped=state.dropped, problem=state.problem
    )
