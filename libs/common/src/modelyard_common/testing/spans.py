"""The spans that this process makes, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from modelyard_common import tracing
from modelyard_common.identity import Identity
from modelyard_common.spans import OtlpRecorder

__all__ = ["Recorded", "recording_spans", "traceparent_of"]


class Recorded:
    """What was recorded."""

    def __init__(self, recorder: OtlpRecorder, exporter: InMemorySpanExporter) -> None:
        self._recorder = recorder
        self._exporter = exporter

    @property
    def all(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in that order."""
        self._recorder.flush()
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in self.all]

    def one(self, name: str) -> ReadableSpan:
        """Return the one span of a name."""
        [found] = [span for span in self.all if span.name == name]
        return found


def traceparent_of(span: ReadableSpan) -> str:
    """Return what the span's children name as their parent."""
    its = span.context
    assert its is not None  # noqa: S101  # every span that ended has one
    return f"00-{its.trace_id:032x}-{its.span_id:016x}-{int(its.trace_flags):02x}"


@contextmanager
def recording_spans(ratio: float = 1.0) -> Iterator[Recorded]:
    """Record the spans of this process until the end of the block."""
    exporter = InMemorySpanExporter()
    recorder = OtlpRecorder(Identity("test"), endpoint="http://127.0.0.1:9", ratio=ratio, exporter=exporter)
    tracing.install(recorder)
    try:
        yield Recorded(recorder, exporter)
    finally:
        tracing.install(None)
        recorder.shutdown()
