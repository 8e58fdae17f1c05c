"""A receiver of traces as the services see it: OTLP over HTTP, protobuf in, spans by id out."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import Quiet, listening


@dataclass(frozen=True)
class Seen:
    """A span that was received."""

    service: str
    resource: dict[str, Any]
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    """Ids of spans, of whatever traces."""
    attributes: dict[str, Any]
    failed: bool

    @property
    def place(self) -> tuple[str, str]:
        return self.service, self.name


@dataclass
class Collector:
    """What was received so far."""

    url: str = ""
    spans: dict[str, Seen] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, path: str, content_type: str | None, body: bytes) -> None:
        if (path, content_type) != ("/v1/traces", "application/x-protobuf"):
            self.problems.append(f"{path} with {content_type}")
            return
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(batch.resource.attributes)
            for scope in batch.scope_spans:
                for span in scope.spans:
                    self.spans[span.span_id.hex()] = _seen(resource, span)

    def named(self, service: str, name: str) -> list[Seen]:
        return [span for span in self.spans.values() if span.place == (service, name)]

    def up(self, span: Seen) -> list[tuple[str, str]]:
        """Return a span and what it hangs from, up to where its trace begins."""
        places = [span.place]
        while span.parent in self.spans:
            span = self.spans[span.parent]
            places.append(span.place)
        return places

    def below(self, span: Seen) -> list[Seen]:
        return [one for one in self.spans.values() if one.parent == span.id]

    def pointing_to(self, span: Seen) -> list[Seen]:
        return [one for one in self.spans.values() if span.id in one.links]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return getattr(pair.value, kind) if kind else None


def _seen(resource: dict[str, Any], span: Span) -> Seen:
    return Seen(
        service=resource["service.name"],
        resource=resource,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        failed=span.status.code == 2,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Receive on a free port of loopback."""
    collector = Collector()

    class Handler(Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, self.headers.get("content-type"), body)
            self.reply(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    with listening(Handler) as url:
        collector.url = url
        yield collector
