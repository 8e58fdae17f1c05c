"""A decision keeps the trace that it was taken in, and its command goes on with it, however much later."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from drift_fakes import World
from modelyard_client import TrainingClient
from modelyard_common.errors import Unavailable
from modelyard_common.testing.spans import Recorded, recording_spans, traceparent_of
from modelyard_drift.adapters.peers import TrainingCommands
from modelyard_drift.usecases.request_retrain import RequestRetrain
from opentelemetry.trace import SpanKind


@pytest.fixture
def spans() -> Iterator[Recorded]:
    with recording_spans() as recorded:
        yield recorded


def test_a_window_that_closes_is_a_trace_and_the_command_names_its_decision(world: World, spans: Recorded) -> None:
    world.training.failure = Unavailable("training is away")
    world.send(world.rows(100, heat=3.0))
    world.training.failure = None
    world.turn()

    [command] = world.training.commands
    closed, decided = spans.one("close window"), spans.one("decide retrain")
    assert closed.parent is None, "the events that filled it came in requests of their own"
    assert dict(closed.attributes or {})["modelyard.severity"] == "high"
    assert decided.kind is SpanKind.PRODUCER
    assert decided.parent is not None and decided.parent.span_id == closed.context.span_id
    assert command.traceparent == traceparent_of(decided)


def test_training_is_asked_in_the_trace_of_the_decision(world: World, spans: Recorded) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(409)

    world.training.failure = Unavailable("training is away")
    world.send(world.rows(100, heat=3.0))
    client = TrainingClient("http://training", transport=httpx.MockTransport(answer))
    RequestRetrain(world.services.ingest.transactions, TrainingCommands(client))()
    client.close()

    [sent] = [request for request in asked if request.url.path == "/v1/runs"]
    decided, called = spans.one("decide retrain"), spans.one("POST")
    assert called.parent is not None and called.parent.span_id == decided.context.span_id
    assert sent.headers["traceparent"] == traceparent_of(called)
