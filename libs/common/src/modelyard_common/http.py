"""Outgoing HTTP: every call has a deadline, retries are bounded, a peer that is down is left alone for a while.

Only what is safe to repeat is repeated: GET, HEAD, PUT, DELETE, and a POST that carries an idempotency key.
A peer that drips is one that does not answer in time, be it in the head of its answer or in the body.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from modelyard_contracts.problem import Problem

from modelyard_common import context, tracing
from modelyard_common.auth.bearer import token_in
from modelyard_common.deadlines import CallDeadline
from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.kept_line import KeptLine, LineTaken, NoAnswer
from modelyard_common.problems import error_from
from modelyard_common.trust import trust_for

__all__ = ["CircuitBreaker", "HttpClient"]

_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_RETRYABLE = frozenset({429, 502, 503, 504})


class CircuitBreaker:
    """Stops calling a peer after several failures in a row, and tries one call again after a while.

    Args:
        failures: how many in a row open the breaker.
        open_s: seconds that it stays open; then one caller may try, and the next one after as long again.
        trial_s: how long that caller may take. Nobody else tries meanwhile: each would wait for a peer that hangs.
        monotonic: the clock.
    """

    def __init__(
        self,
        failures: int = 8,
        open_s: float = 1.0,
        *,
        trial_s: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._open_s = open_s
        self._trial_s = max(open_s, trial_s)
        self._failures = 0
        self._open_until = 0.0
        self._monotonic = monotonic
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the peer is left alone now: not once somebody may try again, or who heeds this never would."""
        return self._failures >= self._limit and self._monotonic() < self._open_until

    def allows(self) -> bool:
        """Return whether a call may be made now; who asks an open breaker must make the call if it may."""
        with self._lock:
            if self._failures < self._limit:
                return True
            if (now := self._monotonic()) < self._open_until:
                return False
            self._open_until = now + self._trial_s  # or until its outcome is known; whoever tries may not live to tell
            return True

    def succeeded(self) -> None:
        """Count an answer, of whatever status."""
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        """Count a call that got no answer."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._open_until = self._monotonic() + self._open_s


class HttpClient:
    """Calls one peer.

    Args:
        base_url: of the peer, without a trailing slash.
        service: the peer's name, for messages.
        token_file: holds the bearer token; read for each call, so that a rotated one is taken.
        timeout_s: the deadline of one call, retries included.
        retries: how often a call may be repeated.
        transport: for tests.

    Attributes:
        shown_url: where the peer is, without credentials: for messages.
    """

    def __init__(
        self,
        base_url: str,
        *,
        service: str,
        token_file: Path | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._service = service
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._retries = retries
        self._breaker = CircuitBreaker(trial_s=timeout_s)
        url = httpx.URL(base_url)
        self.shown_url = str(url.copy_with(username=None, password=None, query=None)).rstrip("/")
        self._client = httpx.Client(
            base_url=base_url.rstrip("/"),
            timeout=timeout_s,
            transport=transport,
            trust_env=False,
            verify=trust_for(base_url),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )
        self._deadline = CallDeadline(self._client)
        self._line = KeptLine(base_url) if transport is None else None

    @property
    def base_url(self) -> str:
        """Where the peer is."""
        return str(self._client.base_url).rstrip("/")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
        if self._line is not None:
            self._line.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Make a call and return its 2xx or 304 answer.

        Raises:
            Unavailable: no answer within the deadline, or the breaker is open.
            ModelyardError: the class that stands for the answer's status.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        repeatable = (method in _SAFE or idempotency_key is not None) and not isinstance(content, Iterator)
        attempts = 1 + (self._retries if repeatable else 0)
        sent = self._headers(headers, idempotency_key)
        query = {key: value for key, value in (params or {}).items() if value is not None}
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                response = self._once(method, path, query, json, content, sent, deadline, attempt)
            except Unavailable:
                if last or not self._pause(attempt, deadline):
                    raise
                continue
            if response.is_success or response.status_code == 304:
                return response
            if response.status_code in _RETRYABLE and not last and self._pause(attempt, deadline):
                continue
            raise _error_of(response)
        raise Unavailable(f"{self._service} did not answer")

    def post_large(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str]) -> bytes:
        """Post a large body once, on a connection that is kept for such; return the content of its 2xx answer.

        Args:
            parts: of the body, in order; they are not joined.

        Raises:
            Unavailable: no answer within the deadline, or the breaker is open.
            ModelyardError: the class that stands for the answer's status.
        """
        if self._line is None:
            return self.request("POST", path, content=b"".join(parts), headers=headers).content
        deadline = time.monotonic() + self._timeout_s
        sent = self._headers(headers, None)
        self._ask_breaker()
        try:
            with tracing.call("POST", self._service, self.shown_url + path) as span:
                status, reason, told, content = self._line.post(path, parts, {**sent, **tracing.outgoing()}, deadline)
                _note(span, status)
        except LineTaken as exc:  # which says nothing about the peer
            raise Unavailable(f"other posts to {self._service} took until the deadline", retry_after_s=1.0) from exc
        except (OSError, NoAnswer) as exc:
            self._breaker.failed()
            raise self._unavailable(exc) from exc
        self._breaker.succeeded()
        if not 200 <= status < 300:
            raise _error(status, reason, content, told.get("retry-after", ""))
        return content

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[httpx.Response]:
        """Open a streamed answer; timeout_s bounds the wait for its head and for each piece, not the whole.

        Raises:
            Unavailable: no connection, or it broke.
            ModelyardError: the class that stands for the answer's status.
        """
        query = {key: value for key, value in (params or {}).items() if value is not None}
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        sent = self._headers(headers, None)
        try:
            with tracing.call(method, self._service, self.shown_url + path) as span, ExitStack() as open_:
                with self._deadline.until(time.monotonic() + wait_s), _reachable_name():
                    response = open_.enter_context(
                        self._client.stream(
                            method, path, params=query, headers=sent | tracing.outgoing(), timeout=wait_s
                        )
                    )
                    _note(span, response.status_code)
                    if not response.is_success:
                        response.read()
                        raise _error_of(response)
                yield response
        except httpx.HTTPError as exc:
            raise self._unavailable(exc) from exc

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        json: Any,
        content: bytes | Iterator[bytes] | None,
        headers: Mapping[str, str],
        deadline: float,
        attempt: int,
    ) -> httpx.Response:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Unavailable(f"{self._service} at {self.shown_url} did not answer within the deadline")
        self._ask_breaker()
        try:
            with (
                tracing.call(method, self._service, self.shown_url + path, resend=attempt) as span,
                self._deadline.until(deadline),
                _reachable_name(),
            ):
                response = self._client.request(
                    method,
                    path,
                    params=params,
                    json=json,
                    content=content,
                    headers={**headers, **tracing.outgoing()},
                    timeout=left_s,
                )
                # It has been read, and its stream points back at it. In such a cycle the body that was sent would stay
                # in memory until somebody looks for cycles, and a busy service looks seldom.
                response.stream = httpx.ByteStream(b"")
                _note(span, response.status_code)
        except httpx.HTTPError as exc:
            self._breaker.failed()
            raise self._unavailable(exc) from exc
        self._breaker.succeeded()
        return response

    def _ask_breaker(self) -> None:
        if not self._breaker.allows():
            raise Unavailable(f"{self._service} at {self.shown_url} has not answered for a while", retry_after_s=1.0)

    def _unavailable(self, exc: Exception) -> Unavailable:
        return Unavailable(f"{self._service} at {self.shown_url} cannot be reached ({type(exc).__name__})")

    def _headers(self, extra: Mapping[str, str] | None, idempotency_key: str | None) -> dict[str, str]:
        headers = {}
        if (request := context.request_id.get()) is not None:
            headers["x-request-id"] = request
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {token_in(self._token_file)}"
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        return headers | dict(extra or {})

    @staticmethod
    def _pause(attempt: int, deadline: float) -> bool:
        """Wait before the next attempt (full jitter); return False when the deadline leaves no time."""
        pause_s = random.uniform(0.02, 0.1 * 2**attempt)
        if time.monotonic() + pause_s >= deadline:
            return False
        time.sleep(pause_s)
        return True


@contextmanager
def _reachable_name() -> Iterator[None]:
    """Say as httpx does that there is no connection where the peer's name can be none: an empty label, a long one."""
    try:
        yield
    except UnicodeError as exc:  # of getaddrinfo, which httpx lets pass
        # There it names idna, or no encoding. Any other is that of a path, a query or a header: its caller's own error.
        if getattr(exc, "encoding", "idna") != "idna":
            raise
        raise httpx.ConnectError("the peer's name can be none") from exc


def _note(span: tracing.Span, status: int) -> None:
    span.set("http.response.status_code", status)
    if status >= 400:
        span.failed(str(status))


def _error_of(response: httpx.Response) -> ModelyardError:
    retry_after = response.headers.get("retry-after", "")
    return _error(response.status_code, response.reason_phrase, response.content, retry_after)


def _error(status: int, reason: str, content: bytes, retry_after: str) -> ModelyardError:
    try:
        problem = Problem.model_validate_json(content).model_copy(update={"status": status})
    except ValueError:
        problem = Problem(title=reason or "error", status=status, detail=_told(content))
    return error_from(problem, retry_after_s=float(retry_after) if retry_after.isdecimal() else None)


def _told(content: bytes) -> str:
    """Return what an error of an inference protocol says, or nothing: MLflow calls it ``message``, V1 ``error``."""
    try:
        body = json.loads(content)
    except ValueError:
        return ""
    told = (body.get("message") or body.get("error")) if isinstance(body, dict) else None
    return told if isinstance(told, str) else ""
