"""The hot path: plain ASGI applications for V2 infer and MLflow invocations, beside FastAPI.

FastAPI's own work for a request is several times that of a small model for one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard_common.clock import Clock
from modelyard_common.edge import RawRoute
from modelyard_common.errors import Invalid, ModelyardError, NotFound, Overloaded, TooLarge
from modelyard_common.logs import get_logger

from modelyard_inference.api.codecs import scoring, v2
from modelyard_inference.api.codecs.labels import event_times_from, routing_key_from, times_from_header
from modelyard_inference.api.errors import protocol_status, retry_after, scoring_error, v2_error
from modelyard_inference.domain.requests import Answer, Query, Rows, invalid
from modelyard_inference.usecases.predict import Predict
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["Bounds", "HotPath"]

_log = get_logger(__name__)
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request, and all of them together, may take."""

    timeout_s: float
    max_rows: int
    max_concurrent: int


@dataclass(slots=True)
class _Heads:
    """The headers that are read here."""

    content_type: str = ""
    event_time: str | None = None
    routing_key: str | None = None
    timeout_ms: str | None = None
    encoding: str = ""
    binary: str = ""


_HEADERS = {
    b"content-type": "content_type",
    b"modelyard-event-time": "event_time",
    b"modelyard-routing-key": "routing_key",
    b"modelyard-timeout-ms": "timeout_ms",
    b"content-encoding": "encoding",
    b"inference-header-content-length": "binary",
}


class HotPath:
    """Answers predictions over HTTP."""

    def __init__(self, predict: Predict, served: ServedModels, clock: Clock, bounds: Bounds) -> None:
        self._predict = predict
        self._served = served
        self._clock = clock
        self._bounds = bounds
        self._in_flight = 0

    def routes(self) -> Sequence[RawRoute]:
        """Return the routes for the application."""
        return (
            RawRoute(_is_infer, self.infer, "/v2/models/{model}/infer"),
            RawRoute(_is_invocations, self.invocations, "/models/{model}/invocations"),
        )

    async def infer(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer ``POST /v2/models/{model}[/versions/{version}]/infer``."""
        parts = scope["path"].split("/")
        version = parts[5] if len(parts) == 7 else None

        async def answer(heads: _Heads, body: bytes) -> tuple[bytes, Answer]:
            if heads.binary:
                raise Invalid("binary tensors are not taken; send JSON")
            call = v2.decode(body)
            found = await self._ask(parts[3], version, call.rows, call.parameters, heads)
            return v2.encode(found, call), found

        await self._serve(scope, receive, send, answer, v2_error)

    async def invocations(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer ``POST /models/{model}/invocations``, and ``POST /invocations`` when one model is served."""
        parts = scope["path"].split("/")

        async def answer(heads: _Heads, body: bytes) -> tuple[bytes, Answer]:
            model = parts[2] if len(parts) == 4 else self._only_model()
            kind = heads.content_type.partition(";")[0].strip().lower()
            if kind not in ("", "application/json", "text/csv"):
                raise Invalid("send application/json or text/csv")
            call = scoring.decode_csv(body) if kind == "text/csv" else scoring.decode_json(body)
            found = await self._ask(model, None, call.rows, call.parameters, heads)
            return scoring.encode(found), found

        await self._serve(scope, receive, send, answer, scoring_error)

    def _only_model(self) -> str:
        names = self._served.names
        if len(names) == 1:
            return names[0]
        if not names:
            raise NotFound("no model is served here yet")
        raise invalid("path", f"several models are served: post to /models/<name>/invocations ({', '.join(names)})")

    async def _ask(self, model: str, version: str | None, rows: Rows, parameters: Any, heads: _Heads) -> Answer:
        if rows.count > self._bounds.max_rows:
            raise TooLarge(f"there are {rows.count} rows; at most {self._bounds.max_rows} are taken")
        if "event_time" in parameters:
            times = event_times_from(parameters["event_time"])
        else:
            times = times_from_header(heads.event_time) if heads.event_time else ()
        query = Query(
            model=model,
            rows=rows,
            arrival=datetime.now(UTC),
            deadline=self._clock.monotonic() + self._timeout_s(heads.timeout_ms),
            version=version,
            event_times=times,
            routing_key=routing_key_from(parameters, heads.routing_key),
        )
        return await self._predict(query)

    def _timeout_s(self, given: str | None) -> float:
        if given is None:
            return self._bounds.timeout_s
        if not given.isdecimal() or len(given) > 9 or int(given) == 0:
            raise invalid("modelyard-timeout-ms", "must be a whole number of milliseconds above 0")
        return min(self._bounds.timeout_s, int(given) / 1e3)

    async def _serve(
        self,
        scope: dict[str, Any],
        receive: Any,
        send: Any,
        answer: Callable[[_Heads, bytes], Any],
        error_body: Callable[[ModelyardError], bytes],
    ) -> None:
        heads = _heads(scope["headers"])
        extra: list[tuple[bytes, bytes]]
        status = 200
        try:
            body = await _body(receive)
            if body is None:
                return
            self._enter()
            try:
                if heads.encoding not in ("", "identity"):
                    raise Invalid("send the body without content-encoding")
                content, found = await answer(heads, body)
            finally:
                self._in_flight -= 1
            extra = [
                (b"modelyard-prediction-id", found.prediction_id.encode()),
                (b"modelyard-version", found.digest.encode()),
            ]
        except ModelyardError as exc:
            status, content, extra = _failure(exc, error_body)
        except Exception as exc:
            # Not the exception itself: its message may hold what somebody sent.
            _log.error("request.broken", kind=type(exc).__name__)
            status, content, extra = _failure(ModelyardError("something went wrong here"), error_body)
        headers = [_JSON, (b"content-length", str(len(content)).encode()), *extra]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _enter(self) -> None:
        if self._in_flight >= self._bounds.max_concurrent:
            raise Overloaded(f"{self._bounds.max_concurrent} requests are being answered already", retry_after_s=1)
        self._in_flight += 1


def _failure(
    error: ModelyardError, error_body: Callable[[ModelyardError], bytes]
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    wait = retry_after(error)
    return protocol_status(error), error_body(error), [(b"retry-after", wait.encode())] if wait else []


def _heads(headers: Sequence[tuple[bytes, bytes]]) -> _Heads:
    heads = _Heads()
    for name, value in headers:
        if (field := _HEADERS.get(name)) is not None:
            setattr(heads, field, value.decode("latin-1"))
    return heads


async def _body(receive: Any) -> bytes | None:
    """Return the whole body; None when the caller has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_infer(method: str, path: str) -> bool:
    if method != "POST" or not path.startswith("/v2/models/") or not path.endswith("/infer"):
        return False
    parts = path.split("/")
    return len(parts) == 5 or (len(parts) == 7 and parts[4] == "versions")


def _is_invocations(method: str, path: str) -> bool:
    if method != "POST" or not path.endswith("/invocations"):
        return False
    return path == "/invocations" or (path.startswith("/models/") and path.count("/") == 3)
