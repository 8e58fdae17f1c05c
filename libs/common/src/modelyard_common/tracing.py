"""Traces: which one is in hand, how it goes on, and spans where somebody collects them.

The *context* is a W3C ``traceparent``. Every request has one and passes it on, with or without a collector. *Spans*
are made only in a process that was told where to export them, and only in a trace that is sampled; elsewhere ``span``
is a context and nothing more. What does not record passes the context on as it is, so that no span ever names a parent
that nobody exported.

Exceptions are named in spans by their class alone: their messages may hold what somebody sent.
See https://www.w3.org/TR/trace-context/ §3.2 for the header.
"""

from __future__ import annotations

import random
import re
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from modelyard_common import context
from modelyard_common.identity import Identity
from modelyard_common.logs import get_logger

__all__ = [
    "Kind",
    "Recorder",
    "Span",
    "Value",
    "call",
    "configure_tracing",
    "install",
    "is_recording",
    "is_sampled",
    "outgoing",
    "parse_traceparent",
    "recorded",
    "shutdown_tracing",
    "span",
    "start",
    "within",
]

_log = get_logger(__name__)
_HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ODD = frozenset("13579bdf")
_chance = random.Random(secrets.randbits(256))
"""Which traces are recorded."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool


class Span(Protocol):
    """A span that was begun, or the context that stands in its place where nothing is recorded."""

    @property
    def traceparent(self) -> str:
        """What its children name as their parent."""

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see it."""

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def rename(self, name: str) -> None:
        """Give it the name that is only known at its end."""

    def failed(self, kind: str) -> None:
        """Say that what it covers failed, with the kind of failure."""

    def end(self) -> None:
        """End it."""


class Recorder(Protocol):
    """Makes spans: OpenTelemetry's SDK."""

    ratio: float
    """Share of the traces that begin in this process which are recorded."""

    def start(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Sequence[str],
        attributes: Mapping[str, Value] | None,
    ) -> Span:
        """Begin a span that is recorded; without a parent, a trace."""

    def shutdown(self) -> None:
        """Export what waits, and end."""


class _Process:
    """What this process was told: as with logging there is one of it."""

    recorder: Recorder | None = None
    is_service = False


class _Unrecorded:
    """A context alone."""

    __slots__ = ("traceparent",)
    is_recorded = False

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def set(self, name: str, value: Value) -> None:
        """Forget it."""

    def rename(self, name: str) -> None:
        """Forget it."""

    def failed(self, kind: str) -> None:
        """Forget it."""

    def end(self) -> None:
        """Do nothing."""


_NO_CALL = _Unrecorded("")


def parse_traceparent(header: str | None) -> str | None:
    """Return the header if it is valid (version 00, no all-zero ids), else None."""
    if header is None or (match := _HEADER.fullmatch(header.strip())) is None:
        return None
    if set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None
    return match[0]


def is_sampled(traceparent: str) -> bool:
    """Return whether whoever began the trace wants it recorded."""
    return traceparent[-1] in _ODD


def recorded() -> str | None:
    """Return the context in hand, where spans below it are recorded: what is worth writing down for later."""
    current = context.traceparent.get()
    if current is None or _Process.recorder is None or current[-1] not in _ODD:
        return None
    return current


def is_recording() -> bool:
    """Return whether this process records spans at all."""
    return _Process.recorder is not None


def start(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Sequence[str] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Span:
    """Begin a span that whoever asks ends; ``span`` is the safer way wherever it can be used.

    Args:
        name: what is done, of few different values.
        kind: its part in a call or a hand-over.
        parent: a stored context; else the one in hand, else a trace begins.
        links: contexts that it takes up from, where there are several of them or none is waiting for it.
        attributes: by the names of OpenTelemetry's semantic conventions, our own under ``modelyard.``.
    """
    parent = parent or context.traceparent.get()
    recorder = _Process.recorder
    if recorder is not None and _is_wanted(recorder, parent, links):
        return recorder.start(name, kind=kind, parent=parent, links=links, attributes=attributes)
    return _Unrecorded(parent or context.new_traceparent())


def _is_wanted(recorder: Recorder, parent: str | None, links: Sequence[str]) -> bool:
    """Return whether a span is to be recorded: as its trace is; where one begins, by chance, or since a link's is.

    It is decided here and not by a sampler of the SDK's, which would make a span to say that there is none.
    """
    if parent is not None:
        return is_sampled(parent)
    return any(map(is_sampled, links)) or _chance.random() < recorder.ratio


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Sequence[str] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Iterator[Span]:
    """Do something as a span: it is the context in hand until the block ends, and fails when the block raises."""
    begun = start(name, kind=kind, parent=parent, links=links, attributes=attributes)
    before = context.traceparent.set(begun.traceparent)
    try:
        yield begun
    except BaseException as exc:
        begun.failed(type(exc).__name__)
        raise
    finally:
        context.traceparent.reset(before)
        begun.end()


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Go on with a stored trace, without a span: for log lines, and for the calls that are made meanwhile."""
    before = context.traceparent.set(traceparent)
    try:
        yield
    finally:
        context.traceparent.reset(before)


@contextmanager
def call(method: str, peer: str, url: str, *, resend: int = 0) -> Iterator[Span]:
    """Make an HTTP call as a span of the trace in hand; without one no trace begins, or every poll would be one."""
    if recorded() is None:
        yield _NO_CALL
        return
    attributes: dict[str, Value] = {"http.request.method": method, "url.full": url, "peer.service": peer}
    if resend:
        attributes["http.request.resend_count"] = resend
    with span(method, kind="client", attributes=attributes) as begun:
        yield begun


def outgoing() -> dict[str, str]:
    """Return the headers that pass the context on.

    Outside of a request a service says that it records nothing, since nobody asked for what it does by itself. Any
    other program goes on with its own trace where it has one by OpenTelemetry, and else whom it calls decides.
    """
    current = context.trace_in_hand()
    if current is None:
        return {"traceparent": context.new_traceparent()} if _Process.is_service else _of_the_program()
    state = context.tracestate.get()
    return {"traceparent": current} | ({"tracestate": state} if state else {})


def _of_the_program() -> dict[str, str]:
    """Return the context of a program that uses our clients and OpenTelemetry; one that does not, imports nothing."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        TraceContextTextMapPropagator().inject(headers)
    return headers


def configure_tracing(identity: Identity, *, endpoint: str | None, ratio: float = 1.0) -> None:
    """Record spans from now on, if there is somewhere to export them.

    Args:
        identity: what the spans say of this process.
        endpoint: base URL of an OTLP/HTTP receiver; None: no spans.
        ratio: share of the traces that begin here which are sampled; others have said so themselves.
    """
    _Process.is_service = True
    if endpoint is None:
        return
    # The SDK and the exporter take a quarter of a second to import, which only who exports need wait for.
    from modelyard_common.spans import OtlpRecorder  # noqa: PLC0415

    install(OtlpRecorder(identity, endpoint=endpoint, ratio=ratio))
    _log.info("tracing.on", endpoint=endpoint, ratio=ratio)


def install(recorder: Recorder | None) -> None:
    """Record spans with recorder from now on; None: no more."""
    _Process.recorder = recorder


def shutdown_tracing(timeout_s: float = 3.0) -> None:
    """Export what waits, for timeout_s seconds at most: a receiver that is away holds nobody up."""
    recorder, _Process.recorder, _Process.is_service = _Process.recorder, None, False
    if recorder is None:
        return
    # The SDK's own shutdown waits for half a minute.
    ending = threading.Thread(target=recorder.shutdown, name="end-of-tracing", daemon=True)
    ending.start()
    ending.join(timeout_s)
