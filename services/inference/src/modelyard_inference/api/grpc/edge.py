"""The edge of the gRPC server: ids, trace, metrics, and errors as statuses.

What HTTP's edge does for its side, with the same tokens, the same ids and the same tree of errors.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from modelyard_common import context, metrics, tracing
from modelyard_common.drawn import DrawnDigits
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.logs import get_logger

from modelyard_inference.api.codecs.labels import key_text
from modelyard_inference.api.front import Labels
from modelyard_inference.api.grpc.calls import Call, Pairs
from modelyard_inference.api.grpc.status import FAULTS, StatusCode, status_of

__all__ = ["Counts", "answering", "enter", "labels_of", "our_fault", "read", "read_only", "trailers_of"]

_log = get_logger(__name__)
M = TypeVar("M", bound=Message)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_SERVICE = "inference"
_PROTOCOL = "inference.GRPCInferenceService"
_digits = DrawnDigits()


class Counts:
    """Counts the calls of one method, or the messages of a stream."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._seconds = metrics.GRPC_SECONDS.labels(service=_SERVICE, method=method)
        self._fine = metrics.GRPC_REQUESTS.labels(service=_SERVICE, method=method, code="OK")

    def add(self, code: StatusCode, took_s: float) -> None:
        """Count one that has ended."""
        if code is StatusCode.OK:
            self._fine.inc()
        else:
            metrics.GRPC_REQUESTS.labels(service=_SERVICE, method=self._method, code=code.name).inc()
        self._seconds.observe(took_s)


def answering(
    method: str, counts: Counts, answer: Callable[[Call], Awaitable[None]]
) -> Callable[[Call], Awaitable[None]]:
    """Return a method of one message and one answer, that is traced, and counted. Probes are no traces."""
    is_probe = method.startswith("Server")

    async def answered(call: Call) -> None:
        started = time.perf_counter()
        enter(call)
        span = None if is_probe else _traced(method)
        code = StatusCode.OK
        try:
            await answer(call)
        except asyncio.CancelledError:
            code = StatusCode.DEADLINE_EXCEEDED if call.is_late else StatusCode.CANCELLED
            raise
        except Exception as exc:
            error = our_fault(exc)
            code = status_of(error)
            call.end(code, error.message, trailers_of())
        finally:
            _end(span, code)
            if code is not StatusCode.CANCELLED:  # nobody waited for it
                counts.add(code, time.perf_counter() - started)

    return answered


def enter(call: Call) -> None:
    """Take the caller's request id, or a new one, and their trace; from here on they are in every line of the log."""
    context.request_id.set(_request_id(call))
    context.traceparent.set(tracing.parse_traceparent(call.text(b"traceparent")))


def _request_id(call: Call) -> str:
    offered = call.metadata.get(b"x-request-id")
    if offered is None or not _REQUEST_ID.fullmatch(offered):
        return _digits.one()
    return offered.decode()


def trailers_of(*more: tuple[str, str]) -> Pairs:
    """Return what follows an answer: the request id, and more."""
    own = ("x-request-id", context.request_id.get() or "")
    return tuple((name.encode(), value.encode()) for name, value in (*more, own))


def our_fault(error: Exception) -> ModelyardError:
    """Return what is told of an error; of what is no error of ours, nothing: it may hold what somebody sent."""
    if isinstance(error, ModelyardError):
        return error
    _log.error("request.broken", kind=type(error).__name__)
    return ModelyardError("something went wrong here")


def _traced(method: str) -> tracing.Span | None:
    """Take the caller's trace up, or begin one; return the span, where one is recorded."""
    span = tracing.start(f"{_PROTOCOL}/{method}", kind="server")
    context.traceparent.set(span.traceparent)
    if not span.is_recorded:
        return None
    span.set("rpc.system", "grpc")
    span.set("rpc.service", _PROTOCOL)
    span.set("rpc.method", method)
    return span


def _end(span: tracing.Span | None, code: StatusCode) -> None:
    if span is None:
        return
    span.set("rpc.grpc.status_code", int(code))
    if code in FAULTS:
        span.failed(code.name)
    span.end()


def read(message: M, content: bytes) -> M:
    """Fill a message and return it. Raise Invalid where the bytes are none."""
    try:
        message.ParseFromString(content)
    except DecodeError as exc:
        raise Invalid(f"the message is not a {message.DESCRIPTOR.name}") from exc
    return message


async def read_only(kind: type[M], call: Call) -> M:
    """Return the only message of a call. Raises what ``read`` and ``Call.unpacked`` do."""
    return read(kind(), await call.unpacked(call.messages.popleft()))


def labels_of(call: Call) -> Labels:
    """Return what came beside a request's body. Raise Invalid for a routing key that is not UTF-8."""
    key = call.metadata.get(b"modelyard-routing-key")
    return Labels(
        event_time=call.text(b"modelyard-event-time"),
        routing_key=None if key is None else key_text(key),
        log=call.text(b"modelyard-log"),
        principal=call.principal,
        timeout_ms=call.text(b"modelyard-timeout-ms"),
        left_s=call.left_s,
    )
