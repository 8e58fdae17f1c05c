"""Constructs the inference service: the only module that knows all of its parts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from modelyard_client import DriftClient, RegistryClient
from modelyard_common import metrics as common_metrics
from modelyard_common.auth.authenticator import authenticator_for
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.drawn import DrawnDigits
from modelyard_common.edge import edge_of
from modelyard_common.health import Health
from modelyard_common.lazy_app import LazyApp, Rest
from modelyard_common.lifespan import Life
from modelyard_common.probes import probes
from modelyard_common.tasks import StopSignal, Task

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.bundles import BundleCache
from modelyard_inference.adapters.columnar import ColumnarProcess
from modelyard_inference.adapters.explain_metrics import PrometheusExplainObserver
from modelyard_inference.adapters.isolated import IsolatedRuntimes
from modelyard_inference.adapters.isolated_process import SideContainer, SpawnedProcess
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.adapters.onnx_trees import trees_of
from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.adapters.registry_watch import RegistryWatch
from modelyard_inference.adapters.reports import RuntimeReports
from modelyard_inference.adapters.routing_tables import RoutingFile
from modelyard_inference.adapters.runtimes import ChosenRuntimes, InProcess, RemoteServers
from modelyard_inference.adapters.totals import COUNTED, totals_from, totals_of
from modelyard_inference.adapters.workers.member import Member
from modelyard_inference.adapters.workers.pod_metrics import WORKERS
from modelyard_inference.api.errors import edge_error
from modelyard_inference.api.front import Bounds, Front
from modelyard_inference.api.grpc.server import GrpcServer
from modelyard_inference.api.hot import HotPath
from modelyard_inference.api.services import InferenceServices, SpoolView
from modelyard_inference.domain.ports import Lane, PayloadSink, Reports, Runtimes
from modelyard_inference.domain.records import Totals
from modelyard_inference.payload_log import PayloadLog, payload_log
from modelyard_inference.settings import InferenceSettings, environment_beside
from modelyard_inference.usecases.batching import Batching, Limits
from modelyard_inference.usecases.explain import Explain, ExplainLimits
from modelyard_inference.usecases.judge_candidate import JudgeCandidate
from modelyard_inference.usecases.lifecycle import Lifecycle
from modelyard_inference.usecases.patience import Patience
from modelyard_inference.usecases.predict import Predict
from modelyard_inference.usecases.residents import Residents
from modelyard_inference.usecases.serving import ServedModels
from modelyard_inference.usecases.shadow import Shadow
from modelyard_inference.usecases.together import Together

__all__ = ["build"]

_EXPLANATIONS_WAITING = 8
"""Requests for explanations that may wait for their thread; each may take a second."""
_NICENESS = 10
"""Of the thread that explains: where there is no core to spare, predictions go first."""
_DRIFT_TIMEOUT_S = 5.0
"""Below the time that a task gets to end: a drift that hangs does not hold up a shutdown."""

_PRESENCE_S = 0.05
_SETTLE_S = 1.0
"""What a killed worker may take with it of what it observed; what it answered is counted at once."""


class _Bell:
    """Wakes a task that is made later."""

    def __init__(self) -> None:
        self.task: Task | None = None

    def ring(self) -> None:
        """Start the task's next round now."""
        if self.task is not None:
            self.task.wake()


def build(settings: InferenceSettings, *, clock: Clock | None = None, member: Member | None = None) -> LazyApp:
    """Return the application; whoever serves it starts and stops its tasks.

    Args:
        member: this process's part, when it is one of several that are one server.

    Raises:
        Conflict: another process uses the same data_dir.
    """
    clock = clock or SystemClock()
    home = settings.home
    slot, size = (member.post.slot, member.post.of) if member else (0, 1)
    registry = RegistryClient(settings.registry_url, token_file=settings.token_file)
    follower = RegistryClient(settings.registry_url, token_file=settings.token_file)
    drift = DriftClient(settings.drift_url, token_file=settings.token_file, timeout_s=_DRIFT_TIMEOUT_S)

    log = payload_log(settings, home, slot=slot, size=size, drift=drift)

    report_bell, lifecycle_bell = _Bell(), _Bell()
    runtime_reports = RuntimeReports(registry, settings.instance, report_bell.ring)
    reports: Reports = member or runtime_reports
    observer = metrics.PrometheusObserver()
    served = ServedModels()
    shelf = RoutingFile(home / ("routing.json" if slot == 0 else f"routing-{slot}.json"))
    isolated = _isolated(settings)
    bundles = BundleCache(home / "bundles", registry, most=settings.cached_bundles)
    residents = Residents(settings.memory_budget_bytes, settings.pinned_models, metrics.ResidentCounts(), clock)
    lifecycle = Lifecycle(
        served=served,
        bundles=bundles,
        runtimes=_runtimes(settings, isolated),
        residents=residents,
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

    lane, candidate_lane, explain_lane, body_lane = _lanes(settings)
    judge = JudgeCandidate(log.spool, observer, reports)
    shadow = Shadow(
        lane=candidate_lane,
        sink=log.spool,
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
        new_ids=_ids(),
        champions=Batching(
            lane=lane,
            sink=log.spool,
            observer=observer,
            clock=clock,
            limits=_limits(settings),
            counts_first=member is not None,
        ),
        candidates=Batching(
            lane=candidate_lane, sink=log.spool, observer=observer, clock=clock, limits=_limits(settings), inline=False
        ),
        patience=Patience(clock, max(1, settings.max_concurrent // 2)),
        candidate_share=settings.candidate_share,
        timeout_s=settings.timeout_s,
    )
    table_lane = ThreadLane("tables", threads=1, depth=settings.max_concurrent)
    tables = ColumnarProcess(table_lane, most_rows=settings.max_rows, most_bytes=settings.max_body_bytes)
    front = _front(settings, predict, log.spool, body_lane, counts_first=member is not None)

    def show(stop: StopSignal) -> None:
        del stop
        log.show()
        metrics.SHADOW_WAITING.set(shadow.waiting_rows)
        metrics.show_routing_age(watch.age_s)
        WORKERS.set(size)
        servings = served.all()
        metrics.show_serving(servings, served.waiting)
        metrics.show_lanes(lane, candidate_lane, explain_lane, table_lane, body_lane)
        metrics.show_residents(residents, settings.memory_budget_bytes)
        metrics.show_bodies(front.held)
        loaded = [(one.routing.model, two.version.number) for one in servings for two in one.loaded]
        observer.forget_unloaded(loaded, clock.monotonic())

    # Models that were in force before a restart serve at once, also while the registry is away.
    lifecycle_bell.task = Task("lifecycle", lambda _: lifecycle.reconcile(), 0.5)
    report_bell.task = Task("reports", runtime_reports.deliver, 2.0)
    tasks = [
        lifecycle_bell.task,
        isolated.task(),
        Task("registry-watch", watch.follow),
        report_bell.task,
        Task("shadow", shadow.work),
        *log.tasks,
        Task("gauges", show, 1.0),
    ]
    health = _health(settings, lifecycle, watch, isolated, log)
    totals = _totals_of_all(member) if member else totals_of
    services = InferenceServices(
        served=served,
        loading=member or lifecycle,
        health=health,
        spool=lambda: _spool_of_all(member) if member else _spool_view(log.spool),
        routing_age_s=lambda: watch.age_s,
        shadow_rows=lambda: shadow.waiting_rows,
        totals=totals,
        front=front,
        explain=Explain(
            served=served,
            bundles=bundles,
            lane=explain_lane,
            observer=PrometheusExplainObserver(),
            clock=clock,
            limits=ExplainLimits(settings.explain_rows, settings.explain_evaluations),
            trees=trees_of,
        ),
    )
    grpc = GrpcServer(
        front,
        served,
        member or lifecycle,
        health,
        totals,
        authenticator_for(settings),
        host=settings.host,
        port=settings.grpc_port,
        grace_s=settings.grace_s,
        shared_port=member is not None,
        most_connections=settings.max_connections,
    )
    health.add("grpc", grpc.check, critical=True)
    tasks += _joined(member, lifecycle, health, log.spool, grpc) if member is not None else []
    life = Life(
        "inference",
        health,
        tasks,
        on_close=[
            tables.close,
            table_lane.close,
            body_lane.close,
            lane.close,
            candidate_lane.close,
            explain_lane.close,
            isolated.close,
            *log.on_close,
            registry.close,
            follower.close,
            drift.close,
        ],
        companions=[grpc],
        team=member,
    )
    return _application(settings, services, HotPath(front, tables), life)


def _application(settings: InferenceSettings, services: InferenceServices, hot: HotPath, life: Life) -> LazyApp:
    render = common_metrics.render if life.team is None else life.team.render_metrics
    edge = edge_of(
        settings,
        "inference",
        raw_routes=[*hot.routes(), *probes(life.health, render)],
        error_body=edge_error,
        held=services.front.held,
        counts_first=life.team is not None,
    )

    def rest() -> Rest:
        from modelyard_inference.api.rest import app  # noqa: PLC0415  # FastAPI, once somebody asks for what it answers

        made = app.rest(settings, edge, services)
        gc.freeze()  # as what was there at the start: it stays
        return made

    return LazyApp(edge=edge, life=life, rest=rest, state={"inference": services})


def _health(
    settings: InferenceSettings, lifecycle: Lifecycle, watch: RegistryWatch, isolated: IsolatedRuntimes, log: PayloadLog
) -> Health:
    health = Health()
    health.add("models", lambda: lifecycle.unsettled or None, critical=True)
    health.add("routing", lambda: _stale(watch, settings.stale_after_s), critical=False)
    health.add("runtime", isolated.check, critical=False)
    for name, check in log.checks.items():
        health.add(name, check, critical=False)
    return health


def _joined(member: Member, lifecycle: Lifecycle, health: Health, spool: PayloadSpool, grpc: GrpcServer) -> list[Task]:
    """Make this process one of several; return the tasks for it."""
    member.begin(
        lifecycle,
        settled=lambda: not lifecycle.unsettled,
        draining=lambda: health.is_draining,
        spool=lambda: _spool_view(spool).model_dump(),
        broken=grpc.check,
    )
    health.add("workers", member.check, critical=True)
    health.add("other workers", member.check_others, critical=False)
    return [Task("presence", member.say, _PRESENCE_S), Task("counts", member.settle, _SETTLE_S)]


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
            "remote": RemoteServers(
                settings.remote_hosts, call_s=settings.timeout_s, token_files=settings.remote_token_files
            ),
        }
    )


def _lanes(settings: InferenceSettings) -> tuple[ThreadLane, ThreadLane, ThreadLane, ThreadLane]:
    """Return threads for champions, candidates, explanations and long bodies, so that none takes those of another."""
    return (
        ThreadLane("champions", threads=settings.workers, depth=settings.max_concurrent),
        ThreadLane("candidates", threads=settings.candidate_workers, depth=settings.max_concurrent),
        ThreadLane("explanations", threads=1, depth=_EXPLANATIONS_WAITING, niceness=_NICENESS),
        # One, whatever is late: to read always ends, and what several are read into would add up.
        ThreadLane("bodies", threads=1, depth=settings.max_concurrent, most_lost=0),
    )


def _bounds(settings: InferenceSettings) -> Bounds:
    return Bounds(
        settings.timeout_s,
        settings.max_rows,
        settings.max_concurrent,
        settings.max_body_bytes,
        settings.max_held_bytes,
    )


def _front(
    settings: InferenceSettings, predict: Predict, sink: PayloadSink, reading: Lane, *, counts_first: bool
) -> Front:
    together = Together(
        sink=sink,
        observer=predict.observer,
        clock=predict.clock,
        new_ids=predict.new_ids,
        most_rows=settings.batch_rows,
        counts_first=counts_first,
    )
    return Front(predict, together, predict.served, predict.clock, _bounds(settings), predict.observer, reading)


def _limits(settings: InferenceSettings) -> Limits:
    return Limits(
        rows=settings.batch_rows,
        waiting=settings.max_concurrent,
        runs=settings.model_runs,
        patience_s=settings.run_patience_s,
        inline_rows=settings.inline_rows,
        threads=max(2, settings.workers // 2),  # or one input on which it hangs would hold up its others
    )


def _ids() -> Callable[[int], Sequence[str]]:
    """Return what makes ids. They sort by time, which keeps drift's index narrow: milliseconds, then chance."""
    digits = DrawnDigits()
    last, prefix = 0, ""

    def drawn(count: int) -> Sequence[str]:
        nonlocal last, prefix
        now = time.time_ns() // 1_000_000
        if now != last:
            last, prefix = now, f"{now:011x}-"
        return (prefix + digits.one(),) if count == 1 else [prefix + chance for chance in digits.many(count)]

    return drawn


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


def _spool_of_all(member: Member) -> SpoolView:
    views = [SpoolView.model_validate(told) for told in member.spools()]
    return SpoolView(
        pending_bytes=sum(view.pending_bytes for view in views),
        size_bytes=sum(view.size_bytes for view in views),
        dropped=sum(view.dropped for view in views),
        problem=next((view.problem for view in views if view.problem), None),
    )


def _totals_of_all(member: Member) -> Callable[[str, int], Totals]:
    return lambda model, version: totals_from(member.counts(COUNTED), model, version)
