"""The edge of every service, as one plain ASGI layer: ids, trace, who asks, body bound, metrics, last errors.

It is not built on BaseHTTPMiddleware, because streams and the hot path of inference run through it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, Problem
from starlette.requests import ClientDisconnect

from modelyard_common import context, metrics, tracing
from modelyard_common.auth.guards import Authenticator
from modelyard_common.errors import ModelyardError, Overloaded, TooLarge, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.problems import problem_from, status_of

__all__ = ["ASGIApp", "Edge", "ErrorBody", "RawRoute", "problem_bytes"]

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ErrorBody = Callable[[str, ModelyardError], tuple[bytes, str] | None]
"""(path, error) → body and media type, where the path's protocol has errors of its own; None: a problem document."""

_log = get_logger(__name__)
_OPEN_PATHS = ("/health", "/metrics", "/ping", "/v2/health")
"""Probes and scrapers carry no token."""
_BELOW_OPEN_PATHS = tuple(f"{path}/" for path in _OPEN_PATHS)
_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"})
_OTHER = "_OTHER"
"""What OpenTelemetry calls any other method."""
_MOST_PATH, _MOST_METHOD, _MOST_STATE = 1024, 32, 512
"""Characters of what callers send that are written down or passed on."""
_GONE = 499
"""What nginx calls it when the caller hangs up before the answer: it is in the metrics only, nobody reads it."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class RawRoute:
    """A plain ASGI application beside FastAPI, for what is hot.

    Args:
        matches: (method, path) → whether this route answers.
        app: answers.
        template: the route's name in metrics.
    """

    matches: Callable[[str, str], bool]
    app: ASGIApp
    template: str


def problem_bytes(problem: Problem) -> bytes:
    """Return a problem document as JSON, without what is not set."""
    return problem.model_dump_json(exclude_none=True).encode()


class Edge:
    """Wraps the application of a service."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        authenticator: Authenticator,
        max_body_bytes: int,
        raw_routes: Sequence[RawRoute] = (),
        error_body: ErrorBody = lambda path, error: None,
    ) -> None:
        self._app = app
        self._service = service
        self._authenticator = authenticator
        self._max_body_bytes = max_body_bytes
        self._raw_routes = tuple(raw_routes)
        self._error_body = error_body
        self._in_flight = metrics.IN_FLIGHT.labels(service=service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP goes straight on."""
        if scope["type"] == "websocket":  # no service has one, so that nobody may open one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)
        context.request_id.set(request_id)
        span = self._trace(scope, headers)
        bounded = _BoundedBody(receive, self._max_body_bytes)
        answer = _Answer(send, request_id, bounded, partial(self._error_body, scope["path"]))
        started = time.perf_counter()
        raw = next((route for route in self._raw_routes if route.matches(scope["method"], scope["path"])), None)
        self._in_flight.inc()
        try:
            self._admit(scope, headers)
            await (raw.app if raw else self._app)(scope, bounded, answer)
        except ModelyardError as exc:
            await answer.problem(exc)
        except ClientDisconnect:
            answer.status = _GONE
        except Exception as exc:
            _log.error("request.failed", error=exc, ecs={"http.request.method": scope["method"][:_MOST_METHOD]})
            await answer.problem(ModelyardError("something went wrong here; the log has it under this request id"))
        finally:
            self._in_flight.dec()
            self._count(scope, raw.template if raw else None, answer.status, time.perf_counter() - started, span)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        path: str = scope["path"]
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise TooLarge(f"the body has {length} bytes; at most {self._max_body_bytes} are taken")
        if _is_open(path):
            return
        principal = self._authenticator.authenticate(headers.get("authorization"))
        scope["modelyard.principal"] = principal
        context.principal_name.set(principal.name)

    @staticmethod
    def _trace(scope: Scope, headers: dict[str, str]) -> tracing.Span | None:
        """Take the caller's trace up, or begin one; return the span, where one is recorded."""
        parent = tracing.parse_traceparent(headers.get("traceparent"))
        if parent is not None and len(state := headers.get("tracestate", "")) <= _MOST_STATE and state:
            context.tracestate.set(state)
        if _is_open(scope["path"]):
            context.traceparent.set(parent or tracing.new_traceparent())
            return None
        method = _method(scope)
        span = tracing.start(method, kind="server", parent=parent)
        context.traceparent.set(span.traceparent)
        if not span.is_recorded:
            return None
        host, port = scope.get("server") or ("", 0)
        span.set("http.request.method", _OTHER if method == "other" else method)
        span.set("url.scheme", scope["scheme"])
        span.set("url.path", scope["path"][:_MOST_PATH])
        span.set("server.address", host)
        span.set("server.port", port or 0)
        if (agent := headers.get("user-agent")) is not None:
            span.set("user_agent.original", agent[:_MOST_PATH])
        return span

    def _count(self, scope: Scope, template: str | None, status: int, took_s: float, span: tracing.Span | None) -> None:
        if template is None:
            route = scope.get("route")
            template = getattr(route, "path", None) or "unmatched"
        method = _method(scope)
        metrics.REQUESTS.labels(service=self._service, method=method, route=template, status=str(status)).inc()
        metrics.REQUEST_SECONDS.labels(service=self._service, method=method, route=template).observe(took_s)
        if span is not None:
            span.rename(f"{method} {template}")
            span.set("http.route", template)
            span.set("http.response.status_code", status)
            if status >= 500:
                span.failed(str(status))
            span.end()
        if status < 400 and not _log.says_all:
            return
        level = _log.debug if status < 400 else _log.info
        ecs = {
            "http.request.method": scope["method"][:_MOST_METHOD],
            "http.response.status_code": status,
            "url.path": scope["path"][:_MOST_PATH],
            "event.duration": round(took_s * 1e9),
        }
        level("request.answered", ecs=ecs, route=template)


def _method(scope: Scope) -> str:
    """Return the method, or ``other``: labels and names are of few values."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(_BELOW_OPEN_PATHS)


class _Answer:
    """Sends the response on, with the request id, and remembers its status."""

    def __init__(
        self,
        send: Send,
        request_id: str,
        body: _BoundedBody,
        error_body: Callable[[ModelyardError], tuple[bytes, str] | None],
    ) -> None:
        self._error_body = error_body
        self._send = send
        self._request_id = request_id
        self._body = body
        self.status = 500
        self._begun = False
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if not self._begun and self._body.exceeded and message.get("status", 0) == 400:
            # FastAPI turns whatever goes wrong while it reads a body into a 400.
            await self.problem(self._body.error())
            self._replaced = True
            return
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", self._request_id.encode()))
            message = message | {"headers": headers}
        await self._send(message)

    async def problem(self, error: ModelyardError) -> None:
        """Answer with an error, unless the answer has begun: then the connection is cut by the server."""
        if self._begun:
            raise error
        body, media_type = self._error_body(error) or (
            problem_bytes(problem_from(error, request_id=self._request_id)),
            PROBLEM_MEDIA_TYPE,
        )
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        if isinstance(error, Unavailable | Overloaded):
            headers.append((b"retry-after", str(max(1, round(error.retry_after_s or 1))).encode()))
        if status_of(error) == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self({"type": "http.response.start", "status": status_of(error), "headers": headers})
        await self({"type": "http.response.body", "body": body})


class _BoundedBody:
    """Hands the body on, and refuses to go past the bound."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self._limit = limit

    @property
    def exceeded(self) -> bool:
        """Whether more came than the bound allows."""
        return self._left < 0

    def error(self) -> TooLarge:
        """Return the error that says so."""
        return TooLarge(f"the body is larger than {self._limit} bytes")

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self.exceeded:
                raise self.error()
        return message
