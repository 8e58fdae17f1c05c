"""A prediction's trace goes into the spool with it, and a batch that leaves the spool points to each that it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from inference_fakes import GOOD_ROW, Platform, a_server, eventually
from modelyard_bundle.packaging import Packed
from modelyard_client.drift import TakesNoBlocks
from modelyard_common.testing.spans import Recorded, recording_spans, traceparent_of
from modelyard_common.tracing import span
from modelyard_contracts.events_v1 import EventBatch, EventReceipt
from modelyard_contracts.frames import payloads_in
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.event_sender import EventSender
from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.adapters.routing_tables import routing_from, table_from
from modelyard_inference.adapters.spool_blocks import unpack
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.domain.records import Block
from modelyard_inference.domain.routing import Routing
from opentelemetry.trace import SpanKind, StatusCode
from test_inference_grpc import Caller, typed
from test_inference_lifecycle import Works
from test_inference_spool import a_record

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"
ROWS = {"dataframe_records": [GOOD_ROW, GOOD_ROW]}


@pytest.fixture
def spans() -> Iterator[Recorded]:
    with recording_spans() as recorded:
        yield recorded


@pytest.fixture
def works(tmp_path: Path, bundles: tuple[Packed, Packed]) -> Works:
    return Works(tmp_path, *bundles)


def traced(number: int, traceparent: str) -> Block:
    return a_record(number, traceparent=traceparent)


class Taker:
    """Takes batches, in whatever trace they come."""

    def __init__(self, *, knows_blocks: bool = True) -> None:
        self.knows_blocks = knows_blocks
        self.batches: list[EventBatch] = []
        self.blocks: list[bytes] = []

    def send_blocks(self, source: str, blocks: bytes) -> EventReceipt:
        if not self.knows_blocks:
            raise TakesNoBlocks
        sent = list(payloads_in(blocks))
        self.blocks += sent
        return EventReceipt(accepted=len(sent), duplicates=0, last_seq=1)

    def send_events(self, batch: EventBatch) -> EventReceipt:
        self.batches.append(batch)
        return EventReceipt(accepted=len(batch.events), duplicates=0, last_seq=1)


def test_a_batch_points_to_the_traces_in_it_and_belongs_to_none(tmp_path: Path, spans: Recorded) -> None:
    spool, drift = PayloadSpool(tmp_path / "spool", max_bytes=2**20, segment_bytes=2**16), Taker()
    spool.append([traced(1, PARENT), traced(2, PARENT), a_record(3), traced(4, OTHER)])

    EventSender(spool, drift, DeadLetters(tmp_path / "refused"), source="test").send_once()
    spool.close()

    sent = spans.one("send predictions")
    assert (sent.kind, sent.parent) == (SpanKind.PRODUCER, None)
    assert [f"{link.context.trace_id:032x}" for link in sent.links] == ["a" * 32, "c" * 32]
    assert dict(sent.attributes or {})["messaging.batch.message_count"] == 4
    assert [json.loads(row)["id"] for block in drift.blocks for row in unpack(block)] == [
        "p1/0",
        "p2/0",
        "p3/0",
        "p4/0",
    ]


def test_however_many_wait_each_prediction_is_pointed_to(tmp_path: Path, spans: Recorded) -> None:
    spool = PayloadSpool(tmp_path / "spool", max_bytes=2**22, segment_bytes=2**21)
    spool.append([traced(number, f"00-{number:032x}-{'b' * 16}-01") for number in range(1, 1202)])

    sender = EventSender(spool, Taker(), DeadLetters(tmp_path / "refused"), source="test")
    while sender.send_once():
        pass
    spool.close()

    assert [len(span.links) for span in spans.all] == [500, 500, 201]
    assert {link.context.trace_id for span in spans.all for link in span.links} == set(range(1, 1202))


def test_a_drift_of_an_older_version_gets_a_trace_and_no_field_that_it_does_not_know(
    tmp_path: Path, spans: Recorded
) -> None:
    spool, drift = PayloadSpool(tmp_path / "spool", max_bytes=2**20, segment_bytes=2**16), Taker(knows_blocks=False)
    spool.append([traced(1, PARENT), a_record(2)])

    EventSender(spool, drift, DeadLetters(tmp_path / "refused"), source="test").send_once()
    spool.close()

    assert spans.names == ["send predictions", "send predictions"]  # one for the attempt
    body = json.loads(drift.batches[0].model_dump_json(exclude_unset=True))
    assert [event["id"] for event in body["events"]] == ["p1/0", "p2/0"]
    assert not any({"traceparent", "queue_ms"} & event.keys() for event in body["events"])


def test_a_batch_without_a_recorded_trace_makes_no_span(tmp_path: Path, spans: Recorded) -> None:
    spool = PayloadSpool(tmp_path / "spool", max_bytes=2**20, segment_bytes=2**16)
    spool.append([a_record(1)])
    EventSender(spool, Taker(), DeadLetters(tmp_path / "refused"), source="test").send_once()
    spool.close()

    assert spans.names == []


def test_a_prediction_is_followed_from_its_request_to_the_batch(
    platform: Platform, bundles: tuple[Packed, Packed], spans: Recorded
) -> None:
    with a_server(platform, bundles) as http:
        answer = http.post("/models/power/invocations", json=ROWS, headers={"traceparent": PARENT})
        eventually(lambda: len(platform.drift.events) == 2)
        eventually(lambda: "send predictions" in spans.names)

    served = spans.one("POST /models/{model}/invocations")
    predicted, sent = spans.one("predict"), spans.one("send predictions")
    assert served.parent is not None and f"{served.parent.span_id:016x}" == "b" * 16
    assert predicted.parent is not None and predicted.parent.span_id == served.context.span_id
    assert dict(predicted.attributes or {}) == {
        "modelyard.model": "power",
        "modelyard.rows": 2,
        "modelyard.version": 1,
        "modelyard.role": "champion",
        "modelyard.prediction_id": answer.headers["modelyard-prediction-id"],
    }
    assert [link.context.span_id for link in sent.links] == [predicted.context.span_id]
    called = [one for one in spans.all if one.parent is not None and one.parent.span_id == sent.context.span_id]
    assert [(one.kind, dict(one.attributes or {})["peer.service"]) for one in called] == [(SpanKind.CLIENT, "drift")]


def test_a_call_over_grpc_is_a_server_span_with_the_prediction_below_it(
    platform: Platform, bundles: tuple[Packed, Packed], spans: Recorded
) -> None:
    with a_server(platform, bundles), grpc.insecure_channel(platform.grpc_target) as channel:
        caller = Caller(channel, (("traceparent", PARENT),))
        caller("ModelInfer", typed())
        caller("ServerReady", pb.ServerReadyRequest())
        caller.refused("ModelInfer", pb.ModelInferRequest(model_name="power"))

    name = "inference.GRPCInferenceService/ModelInfer"
    served, refused = [one for one in spans.all if one.name == name]
    assert (served.kind, f"{served.context.trace_id:032x}") == (SpanKind.SERVER, "a" * 32)
    found = dict(served.attributes or {})
    assert (found["rpc.system"], found["rpc.method"], found["rpc.grpc.status_code"]) == ("grpc", "ModelInfer", 0)
    assert dict(refused.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.status.status_code is not StatusCode.ERROR, "a request without rows is the caller's fault"
    below = [one for one in spans.all if one.name == "predict" and one.parent is not None]
    assert served.context.span_id in {one.parent.span_id for one in below if one.parent is not None}
    assert not [one for one in spans.names if "Server" in one]


@pytest.mark.parametrize("header", [{}, {"traceparent": f"{PARENT[:-1]}0"}], ids=["no header", "not sampled"])
def test_with_sampling_off_a_request_makes_no_span_and_its_record_has_no_trace(
    platform: Platform, bundles: tuple[Packed, Packed], header: dict[str, str]
) -> None:
    with recording_spans(0.0) as spans, a_server(platform, bundles) as http:
        assert http.post("/models/power/invocations", json=ROWS, headers=header).status_code == httpx.codes.OK
        eventually(lambda: len(platform.drift.events) == 2)
        written = b"".join(path.read_bytes() for path in (platform.data_dir / "inference/spool").glob("*.events"))

        assert spans.names == []
    assert b"sha256:" in written
    assert b"00-" not in written


def test_a_swap_goes_on_with_the_trace_that_published_it(works: Works, spans: Recorded) -> None:
    works.want(1, works.one)
    works.lifecycle.wish(Routing("power", 2, works.two, traceparent=PARENT))
    works.lifecycle.reconcile()

    _, swapped = [one for one in spans.all if one.name == "apply routing"]
    assert swapped.parent is not None and traceparent_of(swapped).split("-")[1] == "a" * 32
    loaded = [one for one in spans.all if one.name == "load version"][-1]
    assert loaded.parent is not None and loaded.parent.span_id == swapped.context.span_id
    assert dict(loaded.attributes or {})["modelyard.version"] == 2


def test_a_server_that_starts_has_its_own_story_and_points_to_who_published(works: Works, spans: Recorded) -> None:
    works.lifecycle.wish(Routing("power", 7, works.one, traceparent=PARENT))
    works.lifecycle.reconcile()

    applied = spans.one("apply routing")
    assert applied.parent is None
    assert [f"{link.context.trace_id:032x}" for link in applied.links] == ["a" * 32]


def test_who_asks_to_load_is_answered_in_a_trace_of_its_own(works: Works, spans: Recorded) -> None:
    works.want(1, works.one)
    works.lifecycle.unload("power")
    works.lifecycle.wish(Routing("power", 2, works.two, traceparent=PARENT))
    with span("asked", parent=OTHER):
        works.lifecycle.load("power")

    applied = [one for one in spans.all if one.name == "apply routing"][-1]
    assert traceparent_of(applied).split("-")[1] == "c" * 32
    assert [f"{link.context.trace_id:032x}" for link in applied.links] == ["a" * 32]


def test_the_same_routes_are_the_same_whoever_published_them_and_a_wrong_trace_is_none() -> None:
    routing = Routing("power", 2, traceparent=PARENT)

    assert routing == Routing("power", 2)
    assert routing_from(table_from(routing)) == routing
    assert routing_from(table_from(routing).model_copy(update={"traceparent": PARENT})).traceparent == PARENT
    assert routing_from(table_from(routing).model_copy(update={"traceparent": "x"})).traceparent is None
