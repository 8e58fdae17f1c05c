"""The edge of every service, as one plain ASGI layer: ids, trace, who asks, body bound, metrics, last errors.

It is not built on BaseHTTPMiddleware, because streams run through it. Raw routes do not even enter FastAPI: the edge
reads their requests and sends their answers itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, Problem
from prometheus_client import Counter

from modelyard_common import context, metrics, tracing
from modelyard_common.auth.authenticator import Authenticator, authenticator_for
from modelyard_common.auth.principals import ANONYMOUS, Principal
from modelyard_common.bodies import BoundedBody, HeldBytes
from modelyard_common.drawn import DrawnDigits
from modelyard_common.errors import ModelyardError, Overloaded, TooLarge, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.problems import problem_from, status_of
from modelyard_common.raw import Caller, Head, Headers, RawAnswer, RawRequest, RawRoute, nothing_more, read_body
from modelyard_common.settings import ServiceSettings

__all__ = ["Edge", "ErrorBody", "edge_of", "problem_bytes"]

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
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_GONE = 499
"""What nginx calls it when the caller hangs up before the answer: it is in the metrics only, nobody reads it."""
_digits = DrawnDigits()


def problem_bytes(problem: Problem) -> bytes:
    """Return a problem document as JSON, without what is not set."""
    return problem.model_dump_json(exclude_none=True).encode()


def edge_of(
    settings: ServiceSettings,
    service: str,
    *,
    raw_routes: Sequence[RawRoute],
    error_body: ErrorBody = lambda path, error: None,
    held: HeldBytes | None = None,
    counts_first: bool = False,
) -> Edge:
    """Return the edge of a service that is set up so.

    Args:
        raw_routes: what answers before the framework does.
        error_body: how errors are written on paths whose protocol has its own.
        held: counts what bodies take together, for a service that does not write them down as they come.
        counts_first: before the answer leaves, where counts outlive the process; else behind it.
    """
    return Edge(
        service=service,
        authenticator=authenticator_for(settings),
        max_body_bytes=settings.max_body_bytes,
        raw_routes=raw_routes,
        error_body=error_body,
        held=held,
        counts_first=counts_first,
    )


_Answered = tuple[str, str, int, float, int]
"""Method, route, status, seconds that it took, and how many answers."""


class Edge:
    """What surrounds the application of a service."""

    def __init__(
        self,
        *,
        service: str,
        authenticator: Authenticator,
        max_body_bytes: int,
        raw_routes: Sequence[RawRoute] = (),
        error_body: ErrorBody = lambda path, error: None,
        held: HeldBytes | None = None,
        counts_first: bool = False,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._max_body_bytes = max_body_bytes
        self._raw_routes = tuple(raw_routes)
        self._error_body = error_body
        self._held = held
        self._counts_first = counts_first
        self._in_flight = 0
        metrics.IN_FLIGHT.labels(service=service).set_function(lambda: self._in_flight)
        self._counters: dict[tuple[str, str, int], tuple[Counter, metrics.QuickHistogram]] = {}
        self._answered = metrics.Gathered(self._count_all)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application within this edge; anything but HTTP goes straight on."""
        # Who has nothing to surround does not load it.
        from starlette.requests import ClientDisconnect  # noqa: PLC0415

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._answer(app, scope, receive, send, ClientDisconnect)
            elif scope["type"] == "websocket":  # no service has one, so that nobody may open one
                await send({"type": "websocket.close", "code": 1008})
            else:
                await app(scope, receive, send)

        return answer

    def raw_route(self, scope: Scope) -> RawRoute | None:
        """Return the raw route of a request, if it has one."""
        if scope["type"] != "http":
            return None
        method, path = scope["method"], scope["path"]
        for route in self._raw_routes:
            if route.matches(method, path):
                return route
        return None

    def head_of(self, scope: Scope) -> Head | None:
        """Return the head of a request that may be answered soon; None for any other."""
        route = self.raw_route(scope)
        if route is None or route.soon is None:
            return None
        headers: Headers = dict(scope["headers"])
        prepared = route.prepare(scope["path"], headers)
        if prepared is None:
            return None
        is_open = _is_open(scope["path"])
        kin = None if route.together is None else route.kin(prepared)
        if kin is not None:
            kin = (route.template, kin)
        path, method = scope["path"], scope["method"]
        return Head(method, path, headers, route.template, route.soon, prepared, is_open, route.together, kin)

    async def answer_raw(self, route: RawRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of a raw route."""
        headers: Headers = dict(scope["headers"])
        request_id = _take_request_id(headers)
        span = self._trace(scope, headers)
        started = time.perf_counter()
        self._in_flight += 1
        status = _GONE
        try:
            answer = await self._ask(route, scope, headers, receive)
            if answer is None:
                return
            status = answer.status
            await send(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [
                        (b"content-type", answer.media_type),
                        (b"content-length", b"%d" % len(answer.content)),
                        *answer.pairs,
                        (b"x-request-id", request_id),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": answer.content})
        finally:
            self._in_flight -= 1
            self._count_in(scope, route.template, status, time.perf_counter() - started, span)

    def answer_soon(
        self, head: Head, body: bytes, send: Callable[[RawAnswer, bytes], None], caller: Caller | None = None
    ) -> bool:
        """Answer a request that was read whole without a coroutine, if that may be.

        Args:
            caller: is told what to do when they hang up, where the answer comes in a later turn.
            send: takes the answer and the request id; it may be called before this returns.

        Returns:
            False, having done nothing, for a request that is left to ``answer_raw``.
        """
        if tracing.is_recording():
            return False
        method, path, headers, template, soon, prepared, is_open, _, _ = head
        request_id = _take_request_id(headers)
        if b"traceparent" in headers:
            context.traceparent.set(tracing.parse_traceparent(_text(headers, b"traceparent")))
        started = time.perf_counter()
        is_done = False

        def done(answer: RawAnswer) -> None:
            nonlocal is_done
            if is_done:
                return
            is_done = True
            self._in_flight -= 1
            took_s = time.perf_counter() - started
            if self._counts_first:
                self._count(method, path, template, answer.status, took_s)
                send(answer, request_id)
                return
            send(answer, request_id)
            # Behind the answer: the caller has it while this is done, and whoever scrapes comes in a later turn.
            self._count(method, path, template, answer.status, took_s)

        self._in_flight += 1
        try:
            if len(body) > self._max_body_bytes:
                raise self._too_large(len(body))
            principal = ANONYMOUS if is_open else self._known(headers)
        except ModelyardError as exc:
            done(self._error(path, exc))
            return True
        try:
            is_taken = soon(RawRequest(path, principal, headers, body, nothing_more, prepared, caller), done)
        except Exception as exc:
            if is_done:  # it has its answer, or nobody to take it
                raise
            if caller is not None:
                caller.left = None
            _log.error("request.failed", error=exc, ecs={"http.request.method": method[:_MOST_METHOD]})
            done(self._error(path, _our_fault()))
            return True
        if is_taken:
            if caller is not None and (leave := caller.left) is not None:

                def left() -> None:
                    self._in_flight -= 1
                    self._count(method, path, template, _GONE, time.perf_counter() - started)
                    leave()

                caller.left = left
            return True
        self._in_flight -= 1
        return False

    def answer_together(
        self,
        heads: Sequence[Head],
        bodies: Sequence[memoryview],
        arrived: float,
        send: Callable[[Sequence[RawAnswer], Sequence[bytes]], None],
    ) -> bool:
        """Answer requests that are kin, each as if it came alone, if that may be.

        Args:
            arrived: ``time.monotonic()`` when the first of them came.
            send: takes the answers and the request ids before this returns.

        Returns:
            False, having done nothing, where each has to be looked at by itself.
        """
        first, count = heads[0], len(heads)
        if first.together is None or tracing.is_recording() or _log.says_all:
            return False
        try:
            for head in {id(head): head for head in heads}.values():
                if not head.is_open:
                    self._known(head.headers)
        except ModelyardError:
            return False
        if max(map(len, bodies)) > self._max_body_bytes:
            return False

        def done(answers: Sequence[RawAnswer]) -> None:
            took_s, statuses = time.monotonic() - arrived, [answer.status for answer in answers]
            if not self._counts_first:
                send(answers, _new_request_ids(count))
            for status in set(statuses):
                self._count(first.method, first.path, first.template, status, took_s, statuses.count(status))
            if self._counts_first:
                send(answers, _new_request_ids(count))

        self._in_flight += count
        try:
            return first.together(first.prepared, bodies, arrived, done)
        finally:
            self._in_flight -= count

    async def _ask(self, route: RawRoute, scope: Scope, headers: Headers, receive: Receive) -> RawAnswer | None:
        """Return a raw route's answer, or its error; None when the caller has gone."""
        bounded = BoundedBody(receive, self._max_body_bytes, self._held)
        try:
            principal = self._admit(scope["path"], headers)
            body = await read_body(bounded)
            if body is None:
                return None
            return await route.answer(RawRequest(scope["path"], principal, headers, body, receive))
        except ModelyardError as exc:
            answer = self._error(scope["path"], exc)
        except Exception as exc:
            _log.error("request.failed", error=exc, ecs={"http.request.method": scope["method"][:_MOST_METHOD]})
            answer = self._error(scope["path"], _our_fault())
        finally:
            bounded.close()
        if _waits(headers) and not bounded.is_asked_for:
            return answer._replace(headers=answer.headers + b"connection: close\r\n")
        return answer

    def _error(self, path: str, error: ModelyardError) -> RawAnswer:
        """Return an error as the path's protocol writes it."""
        body, media_type = self._error_body(path, error) or (
            problem_bytes(problem_from(error, request_id=context.request_id.get())),
            PROBLEM_MEDIA_TYPE,
        )
        headers = b""
        if isinstance(error, Unavailable | Overloaded):
            headers += b"retry-after: %d\r\n" % max(1, round(error.retry_after_s or 1))
        if status_of(error) == 401:
            headers += b"www-authenticate: Bearer\r\n"
        return RawAnswer(body, media_type.encode(), status_of(error), headers)

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, gone: type[Exception]) -> None:
        headers: Headers = dict(scope["headers"])
        request_id = _take_request_id(headers)
        span = self._trace(scope, headers)
        bounded = BoundedBody(receive, self._max_body_bytes, self._held)
        answer = _Answer(send, request_id, bounded, partial(self._error, scope["path"]), waits=_waits(headers))
        started = time.perf_counter()
        self._in_flight += 1
        try:
            scope["modelyard.principal"] = self._admit(scope["path"], headers)
            await app(scope, bounded, answer)
        except ModelyardError as exc:
            await answer.problem(exc)
        except gone:
            answer.status = _GONE
        except Exception as exc:
            _log.error("request.failed", error=exc, ecs={"http.request.method": scope["method"][:_MOST_METHOD]})
            await answer.problem(_our_fault())
        finally:
            bounded.close()
            self._in_flight -= 1
            self._count_in(scope, _template(scope), answer.status, time.perf_counter() - started, span)

    def _admit(self, path: str, headers: Headers) -> Principal:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large(int(length))
        return self._who(path, headers)

    def _too_large(self, length: int) -> TooLarge:
        return TooLarge(f"the body has {length} bytes; at most {self._max_body_bytes} are taken")

    def _who(self, path: str, headers: Headers) -> Principal:
        return ANONYMOUS if _is_open(path) else self._known(headers)

    def _known(self, headers: Headers) -> Principal:
        return self._authenticator.authenticate(_text(headers, b"authorization"))

    @staticmethod
    def _trace(scope: Scope, headers: Headers) -> tracing.Span | None:
        """Take the caller's trace up, or begin one; return the span, where one is recorded."""
        parent = tracing.parse_traceparent(_text(headers, b"traceparent"))
        if parent is not None and (state := _text(headers, b"tracestate")) and len(state) <= _MOST_STATE:
            context.tracestate.set(state)
        if _is_open(scope["path"]):
            context.traceparent.set(parent)
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
        if (agent := _text(headers, b"user-agent")) is not None:
            span.set("user_agent.original", agent[:_MOST_PATH])
        return span

    def _count_in(self, scope: Scope, template: str, status: int, took_s: float, span: tracing.Span | None) -> None:
        """Count an answer, and end its span."""
        if span is not None:
            span.rename(f"{_method(scope)} {template}")
            span.set("http.route", template)
            span.set("http.response.status_code", status)
            if status >= 500:
                span.failed(str(status))
            span.end()
        self._count(scope["method"], scope["path"], template, status, took_s)

    def _count(self, method: str, path: str, template: str, status: int, took_s: float, times: int = 1) -> None:
        self._answered.add((method, template, status, took_s, times))
        if status < 400 and not _log.says_all:
            return
        level = _log.debug if status < 400 else _log.info
        ecs = {
            "http.request.method": method[:_MOST_METHOD],
            "http.response.status_code": status,
            "url.path": path[:_MOST_PATH],
            "event.duration": round(took_s * 1e9),
        }
        level("request.answered", ecs=ecs, route=template)

    def _count_all(self, answered: Sequence[_Answered]) -> None:
        for method, template, status, took_s, times in answered:
            counters = self._counters.get((method, template, status))
            if counters is None:
                # Kept, because finding them by their labels costs more than to count. There are few: see the labels.
                label = method if method in _METHODS else "other"
                counters = (
                    metrics.REQUESTS.labels(service=self._service, method=label, route=template, status=str(status)),
                    metrics.REQUEST_SECONDS.labels(service=self._service, method=label, route=template),
                )
                if label == method:
                    self._counters[method, template, status] = counters
            counters[0].inc(times)
            counters[1].observe_all((took_s,) * times)


def _take_request_id(headers: Headers) -> bytes:
    """Return the caller's request id, or a new one; from here on it is in every line of the log."""
    offered = headers.get(b"x-request-id")
    if offered is None or not _REQUEST_ID.fullmatch(offered):
        offered = _digits.one().encode()
    context.request_id.set(offered.decode())
    return offered


def _new_request_ids(count: int) -> Sequence[bytes]:
    return (_digits.one().encode(),) if count == 1 else [digits.encode() for digits in _digits.many(count)]


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _waits(headers: Headers) -> bool:
    """Return whether the caller sends its body when it is asked for. One who is answered before may send it or not, so
    that nobody knows where the next request begins: the connection ends then (RFC 9110, section 10.1.1)."""
    return headers.get(b"expect", b"").strip().lower() == b"100-continue"


def _our_fault() -> ModelyardError:
    return ModelyardError("something went wrong here; the log has it under this request id")


def _template(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "unmatched"


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
        request_id: bytes,
        body: BoundedBody,
        error: Callable[[ModelyardError], RawAnswer],
        *,
        waits: bool,
    ) -> None:
        self._error = error
        self._send = send
        self._request_id = request_id
        self._body = body
        self._waits = waits
        self.status = 500
        self._begun = False
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if not self._begun and self._body.refusal is not None and message.get("status", 0) == 400:
            # FastAPI turns whatever goes wrong while it reads a body into a 400.
            await self.problem(self._body.refusal)
            self._replaced = True
            return
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", self._request_id))
            if self._waits and not self._body.is_asked_for:
                headers.append((b"connection", b"close"))
            message = message | {"headers": headers}
        await self._send(message)

    async def problem(self, error: ModelyardError) -> None:
        """Answer with an error, unless the answer has begun: then the connection is cut by the server."""
        if self._begun:
            raise error
        answer = self._error(error)
        headers = [
            (b"content-type", answer.media_type),
            (b"content-length", b"%d" % len(answer.content)),
            *answer.pairs,
        ]
        await self({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self({"type": "http.response.body", "body": answer.content})
