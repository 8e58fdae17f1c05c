"""The hot path: raw routes for what predicts, beside FastAPI.

FastAPI's own work for a request is several times that of a small model for one row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.logs import get_logger
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute

from modelyard_inference.api.bodies import WORTH_PACKING_BYTES, opened, packed
from modelyard_inference.api.codecs import scoring, v2
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.codecs.labels import key_text
from modelyard_inference.api.codecs.scoring import ScoringCall
from modelyard_inference.api.errors import (
    ErrorBody,
    WrongMethod,
    protocol_status,
    retry_after,
    scoring_error,
    v1_error,
    v2_error,
)
from modelyard_inference.api.front import Front, Labels, timed
from modelyard_inference.api.paths import Target, explain_target, infer_target, invocations_target, predict_target
from modelyard_inference.domain.ports import Tables
from modelyard_inference.domain.requests import Answer, Answered
from modelyard_inference.usecases.batching import Leave

__all__ = ["HotPath"]

_log = get_logger(__name__)
_JSON = b"application/json"
_BINARY = b"application/octet-stream"


@dataclass(slots=True)
class _Heads(Labels):
    """The headers that are read here."""

    content_type: str = ""
    accept: str = ""
    accept_encoding: str = ""
    encoding: str = ""
    json_length: str | None = None


_HEADERS = {
    b"content-type": "content_type",
    b"accept": "accept",
    b"accept-encoding": "accept_encoding",
    b"modelyard-event-time": "event_time",
    b"modelyard-routing-key": "routing_key",
    b"modelyard-log": "log",
    b"modelyard-timeout-ms": "timeout_ms",
    b"content-encoding": "encoding",
    b"inference-header-content-length": "json_length",
}


class _Asked(NamedTuple):
    """A head of the plainest kind: a model without a version, a body that is not packed."""

    model: str
    heads: _Heads


class _Reply(NamedTuple):
    """An answer, written."""

    content: bytes
    answer: Answer
    media_type: bytes = _JSON
    json_length: int | None = None


_ErrorBodyOf = Callable[[ModelyardError], ErrorBody]
_Answering = Callable[[Target, _Heads, bytes], Coroutine[Any, Any, _Reply]]


class HotPath:
    """Answers predictions over HTTP."""

    def __init__(self, front: Front, tables: Tables) -> None:
        self._front = front
        self._tables = tables

    def routes(self) -> Sequence[RawRoute]:
        """Return the routes for the application."""
        return (
            RawRoute(
                lambda method, path: _posted(infer_target, method, path),
                self.infer,
                "/v2/models/{model}/infer",
                self.infer_soon,
                _asked,
                self.infer_together,
                _kin,
            ),
            RawRoute(
                lambda method, path: _posted(invocations_target, method, path),
                self.invocations,
                "/models/{model}/invocations",
            ),
            RawRoute(
                lambda method, path: _posted(predict_target, method, path), self.predict, "/v1/models/{model}:predict"
            ),
            _not_posted(infer_target, "/v2/models/{model}/infer", v2_error),
            _not_posted(invocations_target, "/models/{model}/invocations", scoring_error),
            _not_posted(predict_target, "/v1/models/{model}:predict", v1_error),
            _not_posted(explain_target, "/v1/models/{model}:explain", v1_error),
        )

    async def infer(self, request: RawRequest) -> RawAnswer | None:
        """Answer ``POST /v2/models/{model}[/versions/{version}]/infer``."""
        return await self._answer(request, infer_target, self._infer, v2_error)

    def infer_soon(self, request: RawRequest, done: Callable[[RawAnswer], None]) -> bool:
        """Hand over the answer to a plain ``infer`` without a coroutine; False leaves it to ``infer``.

        Longer bodies than ``DirectProtocol`` takes in one piece do not come here, so none is read apart.
        """
        asked: _Asked = request.prepared
        front, heads, caller = self._front, asked.heads, request.caller
        serving = front.plain(asked.model, may_wait=caller is not None)
        if serving is None:
            return False
        places = front.places
        try:
            places.take()
        except ModelyardError as exc:
            done(_failure(exc, v2_error))
            return True
        began = time.perf_counter()

        def told(answer: Answer | Exception) -> None:
            places.give_back()
            try:
                if isinstance(answer, Exception):
                    raise answer
                reply, encode_s = _encoded(answer, call)
            except Exception as exc:
                done(_error(exc, v2_error))
                return
            done(reply)
            front.took(answer.model, parsed - began, encode_s)  # behind the answer, as all that counts it

        def waits(leave: Leave) -> None:
            def left() -> None:
                places.give_back()
                leave()

            assert caller is not None  # noqa: S101  # or nobody may wait
            caller.left = left

        try:
            call = self._call(asked.model, None, heads, request.body)
            parsed = time.perf_counter()
            if front.ask_soon(serving, call.rows, call.parameters, heads, request.principal, told, waits):
                return True
        except Exception as exc:
            places.give_back()
            done(_error(exc, v2_error))
            return True
        places.give_back()
        return False

    def infer_together(
        self,
        asked: _Asked,
        bodies: Sequence[memoryview],
        arrived: float,
        done: Callable[[Sequence[RawAnswer]], None],
    ) -> bool:
        """Hand over the answers to several plain ``infer`` as those to one; False leaves each to ``infer_soon``.

        What they are called and what they hold is each one's own; what they say besides is one and the same.
        """
        serving = self._front.plain(asked.model)
        if serving is None:
            return False
        began = time.perf_counter()
        text = asked.heads.json_length
        try:
            found = v2.decode_together(bodies, None if text is None else int(text))
        except Exception:  # asked by itself, each is told what is wrong
            return False
        if found is None:
            return False
        rows, counts, calls = found
        parsed = time.perf_counter()

        def told(found: Answered) -> None:
            answered = time.perf_counter()
            try:
                contents, digest = v2.encode_together(found, calls), found.digest
                replies = [_reply(one, digest, *content) for one, content in zip(found.ids, contents, strict=True)]
            except Exception:  # of one of them; it is found out which
                replies = [_written_alone(answer, call) for answer, call in zip(found, calls, strict=True)]
            encode_s, count = time.perf_counter() - answered, len(replies)
            done(replies)
            self._front.took(asked.model, (parsed - began) / count, encode_s / count, count)

        return self._front.ask_together(serving, rows, counts, arrived, told)

    async def invocations(self, request: RawRequest) -> RawAnswer | None:
        """Answer ``POST [/models/{model}[/versions/{version}]]/invocations``."""
        return await self._answer(request, invocations_target, self._invoke, scoring_error)

    async def predict(self, request: RawRequest) -> RawAnswer | None:
        """Answer ``POST /v1/models/{model}[/versions/{version}]:predict``."""
        return await self._answer(request, predict_target, self._predict, v1_error)

    def _call(self, model: str, version: str | None, heads: _Heads, body: bytes) -> v2.V2Call:
        text, most_rows = heads.json_length, self._front.bounds.max_rows
        if text is None:
            return v2.decode(body, None, most_rows)
        if length := _number_of_bytes(text):
            return v2.decode(body, length, most_rows)
        serving = self._front.find(model)
        loaded = serving.champion if version is None else serving.version(version)
        return v2.decode_raw(body, loaded.signature, most_rows)

    async def _infer(self, target: Target, heads: _Heads, body: bytes) -> _Reply:
        decode, size = partial(self._call, target.model, target.version, heads, body), len(body)
        if size > LARGE_BYTES and heads.json_length is not None:
            size = v2.listed_bytes(body, _number_of_bytes(heads.json_length))
        call, parse_s = await self._front.read(partial(timed, decode), size, heads)
        found = await self._front.ask(target.model, target.version, call.rows, call.parameters, heads)
        answered = time.perf_counter()
        content, json_length = v2.encode(found, call)
        self._front.took(found.model, parse_s, time.perf_counter() - answered)
        return _Reply(content, found, _JSON if json_length is None else _BINARY, json_length)

    async def _invoke(self, target: Target, heads: _Heads, body: bytes) -> _Reply:
        model = target.model or self._front.only_model()
        call, parse_s = await self._scoring_call(scoring.media_type_of(heads.content_type), heads, body)
        rows = msgspec.structs.replace(call.rows, extras_ignored=True)
        found = await self._front.ask(model, target.version, rows, call.parameters, heads)
        answered = time.perf_counter()
        if scoring.wants_arrow(heads.accept):
            table = await self._tables.write(scoring.columns_of(found))
            reply = _Reply(table, found, scoring.ARROW_STREAM.encode())
        else:
            reply = _Reply(scoring.encode(found, call), found)
        self._front.took(found.model, parse_s, time.perf_counter() - answered)
        return reply

    async def _scoring_call(self, kind: str, heads: _Heads, body: bytes) -> tuple[ScoringCall, float]:
        """Return a request, and how many seconds it took to read."""
        if kind not in scoring.TABLES:
            decode = scoring.decode_csv if kind == scoring.CSV else scoring.decode_json
            work = partial(timed, partial(decode, body, self._front.bounds.max_rows))
            return await self._front.read(work, len(body), heads)
        began = time.perf_counter()
        with self._front.deadline(heads) as left_s:
            rows = await self._tables.read(body, scoring.TABLES[kind], left_s)
        return ScoringCall(rows, {}), time.perf_counter() - began

    async def _predict(self, target: Target, heads: _Heads, body: bytes) -> _Reply:
        decode = partial(scoring.decode_v1, body, self._front.bounds.max_rows)
        call, parse_s = await self._front.read(partial(timed, decode), len(body), heads)
        found = await self._front.ask(target.model, target.version, call.rows, call.parameters, heads)
        answered = time.perf_counter()
        reply = _Reply(scoring.encode(found, call), found)
        self._front.took(found.model, parse_s, time.perf_counter() - answered)
        return reply

    async def _answer(
        self,
        request: RawRequest,
        target_of: Callable[[str], Target | None],
        answer: _Answering,
        error_body: _ErrorBodyOf,
    ) -> RawAnswer | None:
        try:
            heads = _heads(request.headers)
            heads.principal = request.principal
            target = target_of(request.path)
            assert target is not None  # noqa: S101  # the route has matched
            with self._front.places:
                asked = self._opened(request.body, target, heads, answer)
                # Whoever is packed or long may wait for bodies as well.
                may_wait = heads.encoding or len(request.body) > LARGE_BYTES or self._front.may_wait(target.model)
                reply = await (_unless_gone(asked, request) if may_wait else asked)
            return None if reply is None else await _written(reply, heads)
        except Exception as exc:
            return _error(exc, error_body)

    async def _opened(self, body: bytes, target: Target, heads: _Heads, answer: _Answering) -> _Reply:
        async with opened(body, heads.encoding, self._front, heads) as content:
            return await answer(target, heads, content)


async def _unless_gone(asked: Coroutine[Any, Any, _Reply], request: RawRequest) -> _Reply | None:
    """Return a reply, or None once its caller has gone: then what waits for it leaves its queue."""
    asking = asyncio.current_task()
    assert asking is not None  # noqa: S101  # a request is answered by a task
    going = asyncio.ensure_future(request.gone())
    going.add_done_callback(lambda gone: None if gone.cancelled() else asking.cancel())
    try:
        return await asked
    except asyncio.CancelledError:
        if going.done() and asking.uncancel() == 0:
            return None
        raise
    finally:
        going.cancel()


def _number_of_bytes(json_length: str) -> int:
    if not (json_length.isascii() and json_length.isdecimal()) or len(json_length) > 12:
        raise Invalid.at("Inference-Header-Content-Length", "must be a number of bytes")
    return int(json_length)


def _encoded(answer: Answer, call: v2.V2Call) -> tuple[RawAnswer, float]:
    """Return what to send, and how many seconds it took to write."""
    began = time.perf_counter()
    content, json_length = v2.encode(answer, call)
    encode_s = time.perf_counter() - began
    return _reply(answer.prediction_id, answer.digest, content, json_length), encode_s


def _written_alone(answer: Answer, call: v2.V2Call) -> RawAnswer:
    try:
        return _reply(answer.prediction_id, answer.digest, *v2.encode(answer, call))
    except Exception as exc:
        return _error(exc, v2_error)


def _reply(prediction_id: str, digest: str, content: bytes, json_length: int | None) -> RawAnswer:
    headers = _headers(prediction_id, digest, json_length)
    return RawAnswer(content, _JSON if json_length is None else _BINARY, 200, headers)


def _headers(prediction_id: str, digest: str, json_length: int | None) -> bytes:
    headers = f"modelyard-prediction-id: {prediction_id}\r\nmodelyard-version: {digest}\r\n"
    if json_length is not None:
        headers += f"inference-header-content-length: {json_length}\r\n"
    return headers.encode()


def _error(error: Exception, error_body: _ErrorBodyOf) -> RawAnswer:
    """Return an error; of what is no error of ours, nothing is said: its message may hold what somebody sent."""
    if isinstance(error, ModelyardError):
        return _failure(error, error_body)
    _log.error("request.broken", kind=type(error).__name__)
    return _failure(ModelyardError("something went wrong here"), error_body)


async def _written(reply: _Reply, heads: _Heads) -> RawAnswer:
    content, media_type, answer = reply.content, reply.media_type, reply.answer
    headers = _headers(answer.prediction_id, answer.digest, reply.json_length)
    if heads.accept_encoding and len(content) >= WORTH_PACKING_BYTES:
        content, encoding = await packed(content, heads.accept_encoding)
        headers += b"vary: accept-encoding\r\n"
        if encoding:
            headers += b"content-encoding: %b\r\n" % encoding.encode()
    return RawAnswer(content, media_type, 200, headers)


def _posted(target_of: Callable[[str], Target | None], method: str, path: str) -> bool:
    return method == "POST" and target_of(path) is not None


def _not_posted(target_of: Callable[[str], Target | None], template: str, error_body: _ErrorBodyOf) -> RawRoute:
    """Return the route of any method but POST."""

    async def refused(request: RawRequest) -> RawAnswer:
        del request
        return _failure(WrongMethod(), error_body)

    return RawRoute(lambda method, path: method != "POST" and target_of(path) is not None, refused, template)


def _failure(error: ModelyardError, error_body: _ErrorBodyOf) -> RawAnswer:
    wait = retry_after(error)
    content, media_type = error_body(error)
    headers = b"retry-after: %b\r\n" % wait.encode() if wait else b""
    if isinstance(error, WrongMethod):
        headers += b"allow: POST\r\n"
    return RawAnswer(content, media_type.encode(), protocol_status(error), headers)


def _asked(path: str, headers: Mapping[bytes, bytes]) -> _Asked | None:
    target = infer_target(path)
    if target is None or target.version is not None or b"content-encoding" in headers:
        return None
    try:
        return _Asked(target.model, _heads(headers))
    except Invalid:  # whoever answers tells them
        return None


def _kin(asked: _Asked) -> Hashable | None:
    """Return the same for heads that mean the same, where nothing is in them but how to read a body."""
    length = asked.heads.json_length
    is_read = length is None or (length.isascii() and length.isdecimal() and len(length) <= 12 and int(length) > 0)
    return (asked.model, length) if is_read and asked.heads.says_nothing else None


def _heads(headers: Mapping[bytes, bytes]) -> _Heads:
    """Return what is read of a head. Raise Invalid for a routing key that is not UTF-8, which it is in bodies."""
    heads = _Heads()
    for name, value in headers.items():
        if (field := _HEADERS.get(name)) is None:
            continue
        value = value.strip(b" \t")  # noqa: PLW2901  # the parser leaves what surrounds it
        if field == "routing_key":
            heads.routing_key = key_text(value)
        else:
            setattr(heads, field, value.decode("latin-1"))
    return heads
