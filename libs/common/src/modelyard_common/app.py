"""Where FastAPI applications are made: the same ids, errors, health, metrics, auth and bounds everywhere.

``create_app`` answers an ASGI application; its ``state`` holds what wiring put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, FieldError, Problem
from starlette.exceptions import HTTPException

from modelyard_common import context, metrics
from modelyard_common.edge import Edge, edge_of, problem_bytes
from modelyard_common.errors import Invalid, ModelyardError, Overloaded, Unavailable
from modelyard_common.health import Health
from modelyard_common.lifespan import Life
from modelyard_common.probes import probes
from modelyard_common.problems import problem_from, status_of
from modelyard_common.raw import RawRoute
from modelyard_common.settings import ServiceSettings
from modelyard_common.tasks import Task

__all__ = ["create_app", "framework"]

_VERSION = "v1"


def create_app(
    *,
    service: str,
    settings: ServiceSettings,
    routers: Sequence[APIRouter],
    health: Health,
    tasks: Sequence[Task] = (),
    on_close: Sequence[Callable[[], None]] = (),
    state: Mapping[str, object] | None = None,
    raw_routes: Sequence[RawRoute] = (),
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
    """
    edge = edge_of(settings, service, raw_routes=[*raw_routes, *probes(health, metrics.render)])
    life = Life(service, health, tasks, on_close)
    app = _Service(edge, title=_title(service), version=_VERSION, redoc_url=None, lifespan=lambda app: life.lived())
    _furnish(app, settings, edge, routers, {"health": health, "companions": (), **(state or {})})
    return app


def framework(
    service: str,
    settings: ServiceSettings,
    edge: Edge,
    routers: Sequence[APIRouter],
    state: Mapping[str, object],
) -> FastAPI:
    """Return what answers the routes of routers, within an edge; whoever serves it sees to its tasks and raw routes.

    Args:
        state: becomes ``app.state.<key>``.
    """
    app = FastAPI(title=_title(service), version=_VERSION, redoc_url=None)
    _furnish(app, settings, edge, routers, state)
    return app


def _title(service: str) -> str:
    return f"Modelyard {service}"


def _furnish(
    app: FastAPI, settings: ServiceSettings, edge: Edge, routers: Sequence[APIRouter], state: Mapping[str, object]
) -> None:
    app.state.edge = edge
    app.state.settings = settings
    for key, value in state.items():
        setattr(app.state, key, value)
    for router in routers:
        app.include_router(router)
    _answer_errors(app)
    app.add_middleware(edge.around)


class _Service(FastAPI):
    """FastAPI, save for raw routes: not even its outer layers see those."""

    def __init__(self, edge: Edge, **options: Any) -> None:
        super().__init__(**options)
        self._edge = edge

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        route = self._edge.raw_route(scope)
        if route is not None:
            await self._edge.answer_raw(route, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


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
