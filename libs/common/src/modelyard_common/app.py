"""Where FastAPI applications are made and served: the same ids, errors, health, metrics, auth and drain everywhere.

``create_app`` answers an ASGI application; its ``state`` holds what wiring put there. ``serve`` runs it until
SIGTERM: unready at once, still serving for ``drain_s`` (each answer ends its connection), then the requests in flight
finish, tasks stop, closers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, FieldError, Problem
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from modelyard_common import context, metrics
from modelyard_common.auth.guards import Authenticator
from modelyard_common.auth.tokens import TokenFile
from modelyard_common.awake import Awake
from modelyard_common.bodies import HeldBytes
from modelyard_common.connections import TICK_S, ConnectionBounds, tick
from modelyard_common.direct import DirectProtocol, Learned
from modelyard_common.edge import Edge, ErrorBody, problem_bytes
from modelyard_common.errors import Invalid, ModelyardError, Overloaded, Unavailable
from modelyard_common.health import Health
from modelyard_common.logs import get_logger
from modelyard_common.problems import problem_from, status_of
from modelyard_common.raw import RawRoute
from modelyard_common.settings import ServiceSettings
from modelyard_common.tasks import Task
from modelyard_common.tracing import shutdown_tracing

__all__ = ["Companion", "Team", "bound", "create_app", "protocol_of", "serve"]

_log = get_logger(__name__)
_TASK_JOIN_S = 10.0


class Companion(Protocol):
    """A server beside the HTTP one, on its event loop."""

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Take no more requests, finish those in flight, end. A second call waits for the first."""


class Team(Protocol):
    """The processes that are one server together, as one of them sees them."""

    async def before_listening(self) -> None:
        """Return once this process may take connections; its tasks run already."""

    def render_metrics(self) -> tuple[bytes, str]:
        """Return what ``/metrics`` shows of all of them, and its content type."""


def create_app(  # noqa: PLR0913  # what a service may have, each by name
    *,
    service: str,
    settings: ServiceSettings,
    routers: Sequence[APIRouter],
    health: Health,
    tasks: Sequence[Task] = (),
    on_close: Sequence[Callable[[], None]] = (),
    state: Mapping[str, object] | None = None,
    raw_routes: Sequence[RawRoute] = (),
    companions: Sequence[Companion] = (),
    error_body: ErrorBody = lambda path, error: None,
    team: Team | None = None,
    held: HeldBytes | None = None,
) -> FastAPI:
    """Return the application of a service.

    Args:
        service: its name in logs, metrics and OpenAPI.
        settings: host, auth, bounds.
        routers: the API.
        health: the checks behind ``/health/ready``.
        tasks: started with the application, stopped before the closers run.
        on_close: called in order at the end, each whether or not the one before failed.
        state: becomes ``app.state.<key>``.
        raw_routes: what answers before FastAPI does.
        companions: servers of other protocols on the same event loop.
        error_body: how the edge writes errors on paths whose protocol has its own.
        team: the other processes of this server, when it has several.
        held: counts what bodies take together, for a service that does not write them down as they come.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        for task in tasks:
            task.start()
        if team is not None:
            await team.before_listening()
        for companion in companions:
            await companion.start()
        health.started()
        _log.info("service.started", service=service)
        yield
        health.drain()
        for companion in companions:
            await companion.stop()
        await run_in_threadpool(_close, tasks, on_close)
        _log.info("service.stopped", service=service)

    tokens = TokenFile(settings.tokens_file) if settings.auth == "token" and settings.tokens_file else None
    edge = Edge(
        service=service,
        authenticator=Authenticator(tokens),
        max_body_bytes=settings.max_body_bytes,
        raw_routes=raw_routes,
        error_body=error_body,
        held=held,
    )
    app = _Service(title=f"Modelyard {service}", version="v1", lifespan=lifespan, redoc_url=None)
    app.edge = app.state.edge = edge
    for key, value in (state or {}).items():
        setattr(app.state, key, value)
    app.state.health = health
    app.state.settings = settings
    app.state.companions = companions
    app.include_router(_probes(health, team.render_metrics if team is not None else metrics.render))
    for router in routers:
        app.include_router(router)
    _answer_errors(app)
    app.add_middleware(edge.around)
    return app


class _Service(FastAPI):
    """FastAPI, save for raw routes: not even its outer layers see those."""

    edge: Edge

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        route = self.edge.raw_route(scope)
        if route is not None:
            await self.edge.answer_raw(route, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def serve(app: FastAPI, settings: ServiceSettings, *, shared_port: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        shared_port: other processes of ours listen on it too.
    """
    server = _DrainingServer(app, settings)
    try:
        listener = bound(settings.host, settings.port, shared=shared_port)
        _log.info("service.listening", address=f"{settings.host}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])
    finally:
        shutdown_tracing()


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that has an address and does not listen yet; a shared one leaves it to others of ours too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name: asyncio turns Nagle's algorithm off for such sockets only, and 40 ms a request are lost with it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def protocol_of(app: FastAPI, bounds: ConnectionBounds, *, awake_s: float = 0) -> Any:
    """Return what speaks HTTP for an application of ours: uvicorn asks for a class, calls it, and no more."""
    return partial(DirectProtocol, bounds=bounds, edge=app.state.edge, learned=Learned(), awake=Awake(awake_s))


class _DrainingServer(uvicorn.Server):
    """Turns the first signal into a drain: unready first, shut down after ``drain_s``."""

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        bounds = ConnectionBounds(settings.request_patience_s, settings.max_connections)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(settings.grace_s)),
                timeout_keep_alive=75,
                server_header=False,
                http=protocol_of(app, bounds, awake_s=settings.awake_us / 1e6),
                # It is a layer around every request, for an address and a scheme that nothing here reads.
                proxy_headers=False,
                lifespan="on",
            )
        )
        self._health: Health = app.state.health
        self._drain_s = settings.drain_s
        self._companions: Sequence[Companion] = app.state.companions
        self._ending: list[asyncio.Task[None]] = []

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections; uvicorn calls this ten times a second."""
        if counter % round(TICK_S * 10) == 0:
            tick(self.server_state.connections)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle SIGTERM and SIGINT by draining."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Become unready now, and stop after the drain window; a second signal stops at once."""
        if self._health.is_draining:
            super().handle_exit(sig, frame)
            return
        self._health.drain()
        self._ask_to_hang_up()
        _log.info("service.draining", seconds=self._drain_s)
        loop = asyncio.get_running_loop() if _in_loop() else None
        if loop is None:
            self.should_exit = True
        else:
            loop.call_soon_threadsafe(loop.call_later, self._drain_s, self._exit)

    def _ask_to_hang_up(self) -> None:
        """Answer with ``Connection: close`` from now on (RFC 9112, section 9.6).

        A keep-alive connection that the client closes, having read so, cannot be cut under its next request.
        """
        self.config.encoded_headers = [*self.config.encoded_headers, (b"connection", b"close")]
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    def _exit(self) -> None:
        self.should_exit = True
        # Beside the HTTP server's end, and not after it: one grace for all.
        self._ending = [asyncio.ensure_future(companion.stop()) for companion in self._companions]


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _close(tasks: Sequence[Task], on_close: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task.stop()
    for task in tasks:
        if not task.join(_TASK_JOIN_S):
            _log.warning("task.abandoned", task=task.name)
    for close in on_close:
        try:
            close()
        except Exception as exc:
            _log.error("close.failed", error=exc)


def _probes(health: Health, render_metrics: Callable[[], tuple[bytes, str]]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/health/startup")
    def startup() -> Response:
        return JSONResponse(
            {"status": "started" if health.is_started else "starting"}, status_code=200 if health.is_started else 503
        )

    @router.get("/health/ready")
    def ready() -> Response:
        report = health.report()
        body = {"status": "ready" if report.ready else "unready", "checks": report.checks}
        return JSONResponse(body, status_code=200 if report.ready else 503)

    @router.get("/health")
    def health_() -> Response:
        return ready()

    @router.get("/metrics")
    def metrics_() -> Response:
        body, media_type = render_metrics()
        return Response(body, media_type=media_type)

    return router


def _answer_errors(app: FastAPI) -> None:
    def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
        return Response(problem_bytes(problem), problem.status, headers, PROBLEM_MEDIA_TYPE)

    def modelyard_error(request: Request, exc: Exception) -> Response:
        del request
        assert isinstance(exc, ModelyardError)  # noqa: S101  # registered for this class only
        headers = {}
        if isinstance(exc, Unavailable | Overloaded):
            headers["retry-after"] = str(max(1, round(exc.retry_after_s or 1)))
        if status_of(exc) == 401:
            headers["www-authenticate"] = "Bearer"
        return answer(problem_from(exc, request_id=context.request_id.get()), headers)

    def wrong_request(request: Request, exc: Exception) -> Response:
        del request
        assert isinstance(exc, RequestValidationError)  # noqa: S101
        found = tuple(FieldError(path=_path(e["loc"]), message=_sentence(e)) for e in exc.errors())
        broken = any(e["type"] == "json_invalid" for e in exc.errors())
        problem = problem_from(
            Invalid("the body is not JSON" if broken else "the request has wrong fields", errors=found),
            request_id=context.request_id.get(),
        )
        return answer(problem.model_copy(update={"status": 400}) if broken else problem)

    def http_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101
        detail = "there is no such path here; see /docs" if exc.status_code == 404 else str(exc.detail)
        problem = Problem(
            title=str(exc.detail), status=exc.status_code, detail=detail, request_id=context.request_id.get()
        )
        del request
        return answer(problem, dict(exc.headers or {}))

    app.add_exception_handler(ModelyardError, modelyard_error)
    app.add_exception_handler(RequestValidationError, wrong_request)
    app.add_exception_handler(HTTPException, http_error)


def _path(location: Sequence[int | str]) -> str:
    parts = list(location)
    if parts and parts[0] in {"body", "query", "path", "header"}:
        parts = parts[1:] or ["body"]
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "body"


def _sentence(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a field, without the value: bodies hold other people's data."""
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "extra_forbidden":
        return "is not a field of this request"
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
