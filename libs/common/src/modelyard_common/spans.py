"""Records spans with OpenTelemetry's SDK and exports them over OTLP/HTTP as protobuf.

Imported only where an endpoint is configured. The SDK's provider is ours alone: it is not made the global one, so
that libraries which trace by themselves stay silent. Further variables of OpenTelemetry's are read by the exporter
itself: ``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_EXPORTER_OTLP_CERTIFICATE``, ``OTEL_BSP_*``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from modelyard_common.identity import Identity
from modelyard_common.tracing import Kind, Value, is_sampled

__all__ = ["OtlpRecorder"]

_EXPORT_TIMEOUT_S = 3.0
"""For one batch with its retries; spans are worth less than the time of who waits for the end of a process."""
_MOST_LINKS = 512
"""A batch of events has up to 500, each of another prediction."""
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class _Recorded:
    """One span of the SDK's."""

    __slots__ = ("_failed", "_span", "traceparent")
    is_recorded = True

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self._failed = False
        its = span.get_span_context()
        self.traceparent = f"00-{its.trace_id:032x}-{its.span_id:016x}-{int(its.trace_flags):02x}"

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Give it the name that is only known at its end."""
        self._span.update_name(name)

    def failed(self, kind: str) -> None:
        """Say that what it covers failed; the first kind of failure stays, which is the nearest to its cause."""
        if self._failed:
            return
        self._failed = True
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """End it."""
        self._span.end()


class OtlpRecorder:
    """Makes spans and exports them in batches from a thread of its own; what finds its queue full is dropped.

    Args:
        identity: what the spans say of this process.
        endpoint: base URL of the receiver; ``/v1/traces`` is appended.
        ratio: of traces that begin here.
        exporter: another one than OTLP, for tests.
    """

    def __init__(
        self, identity: Identity, *, endpoint: str, ratio: float = 1.0, exporter: SpanExporter | None = None
    ) -> None:
        self.ratio = ratio
        exporter = exporter or OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(
            # Whether a span is wanted was asked before it is begun.
            sampler=ALWAYS_ON,
            resource=Resource.create(_resource(identity)),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=_MOST_LINKS),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("modelyard", metadata.version("modelyard-common"))

    def start(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Sequence[str],
        attributes: Mapping[str, Value] | None,
    ) -> _Recorded:
        """Begin a span; without a parent, a trace."""
        return _Recorded(
            self._tracer.start_span(
                name,
                context=None if parent is None else set_span_in_context(NonRecordingSpan(_remote(parent))),
                kind=_KINDS[kind],
                attributes=attributes,
                links=[Link(_remote(link)) for link in dict.fromkeys(links) if is_sampled(link)],
                record_exception=False,
                set_status_on_exception=False,
            )
        )

    def flush(self) -> None:
        """Export what waits."""
        self._provider.force_flush()

    def shutdown(self) -> None:
        """Export what waits, and end."""
        self._provider.shutdown()


def _remote(traceparent: str) -> SpanContext:
    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _resource(identity: Identity) -> dict[str, str | int]:
    said: dict[str, str | int] = {
        "service.name": identity.service,
        "service.namespace": "modelyard",
        "service.instance.id": identity.instance,
        "host.name": identity.host,
        "process.pid": os.getpid(),
    }
    if identity.version is not None:
        said["service.version"] = identity.version
    if identity.environment:
        said["deployment.environment.name"] = identity.environment
    return said
