"""The edge of the gRPC server: who asks, ids, trace, metrics, and errors as statuses.

What HTTP's edge does for its side, with the same tokens, the same ids and the same tree of errors.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from modelyard_common import context, metrics, tracing
from modelyard_common.auth.guards import Authenticator
from modelyard_common.auth.principals import ANONYMOUS, Principal
from modelyard_common.errors import (
    Conflict,
    Denied,
    Invalid,
    ModelyardError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from modelyard_common.logs import get_logger

from modelyard_inference.api.front import Labels
from modelyard_inference.domain.requests import Late

__all__ = ["Admission", "answering", "labels_of", "principal", "reader", "status_of"]

_log = get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OPEN = (
    "/grpc.health.v1.Health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
"""Probes carry no token, here as over HTTP."""
_SERVICE = "inference"
_PROTOCOL = "inference.GRPCInferenceService"
_FAULTS = frozenset(
    {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}
)
"""Which statuses are this server's fault, as OpenTelemetry has it."""

principal: ContextVar[Principal] = ContextVar("modelyard_grpc_principal", default=ANONYMOUS)

_CODES: dict[type[ModelyardError], grpc.StatusCode] = {
    Late: grpc.StatusCode.DEADLINE_EXCEEDED,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: ModelyardError) -> grpc.StatusCode:
    """Return the status of an error: that of the nearest class in the table, else INTERNAL."""
    found = (_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    return next(found, grpc.StatusCode.INTERNAL)


class Admission(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Lets calls in, or answers UNAUTHENTICATED; gives each a request id and its caller's trace."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(self, continuation: Any, call: Any) -> Any:
        """Return the handler of a call, or one that refuses it."""
        given = _metadata(call.invocation_metadata)
        offered = given.get("x-request-id", "")
        context.request_id.set(offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8))
        context.traceparent.set(tracing.parse_traceparent(given.get("traceparent")))
        if not call.method.startswith(_OPEN):
            try:
                who = self._authenticator.authenticate(given.get("authorization"))
            except Unauthenticated as exc:
                return _refusal(exc)
            principal.set(who)
            context.principal_name.set(who.name)
        return await continuation(call)


def answering(
    method: str, call: Callable[[Any, grpc.aio.ServicerContext], Awaitable[Message]]
) -> Callable[[Any, grpc.aio.ServicerContext], Awaitable[Message]]:
    """Return a handler whose errors become statuses, and that is counted."""
    seconds = metrics.GRPC_SECONDS.labels(service=_SERVICE, method=method)
    fine = metrics.GRPC_REQUESTS.labels(service=_SERVICE, method=method, code="OK")

    async def answer(request: Any, call_context: grpc.aio.ServicerContext) -> Message:
        started = time.perf_counter()
        span = _traced(method)
        try:
            if request is None:
                raise Invalid("the message is not one of this method")
            response = await call(request, call_context)
        except ModelyardError as exc:
            error = exc
        except Exception as exc:
            # Not the exception itself: its message may hold what somebody sent.
            _log.error("request.broken", kind=type(exc).__name__)
            error = ModelyardError("something went wrong here")
        else:
            fine.inc()
            seconds.observe(time.perf_counter() - started)
            _end(span, grpc.StatusCode.OK)
            return response
        code = status_of(error)
        _end(span, code)
        metrics.GRPC_REQUESTS.labels(service=_SERVICE, method=method, code=code.name).inc()
        seconds.observe(time.perf_counter() - started)
        await call_context.abort(code, error.message)
        raise AssertionError("abort raises")

    return answer


def _traced(method: str) -> tracing.Span | None:
    """Take the caller's trace up, or begin one; return the span, where one is recorded. Probes are no traces."""
    if method.startswith("Server"):
        return None
    span = tracing.start(f"{_PROTOCOL}/{method}", kind="server")
    context.traceparent.set(span.traceparent)
    if not span.is_recorded:
        return None
    span.set("rpc.system", "grpc")
    span.set("rpc.service", _PROTOCOL)
    span.set("rpc.method", method)
    return span


def _end(span: tracing.Span | None, code: grpc.StatusCode) -> None:
    if span is None:
        return
    span.set("rpc.grpc.status_code", code.value[0])
    if code in _FAULTS:
        span.failed(code.name)
    span.end()


def reader(kind: type[Message]) -> Callable[[bytes], Message | None]:
    """Return what reads a message, or gives None where the bytes are none: that is the caller's error."""

    def read(content: bytes) -> Message | None:
        try:
            return kind.FromString(content)
        except DecodeError:
            return None

    return read


def labels_of(call_context: grpc.aio.ServicerContext) -> Labels:
    """Return what came beside a request's body."""
    given = _metadata(call_context.invocation_metadata())
    return Labels(
        event_time=given.get("modelyard-event-time"),
        routing_key=given.get("modelyard-routing-key"),
        log=given.get("modelyard-log"),
        principal=principal.get(),
        timeout_ms=given.get("modelyard-timeout-ms"),
        left_s=call_context.time_remaining(),
    )


def _metadata(pairs: Any) -> dict[str, str]:
    return {key: value for key, value in pairs or () if isinstance(value, str)}


def _refusal(error: ModelyardError) -> Any:
    async def refuse(requests: AsyncIterator[bytes], call_context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        del requests
        await call_context.abort(status_of(error), error.message)
        yield b""

    return grpc.stream_stream_rpc_method_handler(refuse)
