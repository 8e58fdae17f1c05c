"""Several requests as one: the answers, records and counts that each would have had alone, or nothing at all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import SIGNATURE, CountingObserver, ListSink, stub_version
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Invalid
from modelyard_inference.api import hot
from modelyard_inference.api.codecs import v2
from modelyard_inference.domain.answers import AnswerTable
from modelyard_inference.domain.requests import Answer, Answered, Rows
from modelyard_inference.domain.routing import Routing, samples
from modelyard_inference.usecases.record import Ask, answer_block
from modelyard_inference.usecases.serving import Serving
from modelyard_inference.usecases.together import Together
from test_inference_batching import NOW, POISON, Echo, Query, rows_of


class Yard:
    """One version, and who answers several at once."""

    def __init__(self, *, most_rows: int = 1024, counts_first: bool = False, **routing: Any) -> None:
        self.runtime, self.sink, self.observer = Echo(), ListSink(), CountingObserver()
        self.version = stub_version(1, "a", self.runtime)  # type: ignore[arg-type]  # what of a runtime is used
        self.serving = Serving(Routing("power", 7, self.version.version, **routing), self.version)
        self.events: list[str] = []
        ids = itertools.count()
        self.together = Together(
            sink=self.sink,
            observer=self.observer,
            clock=SystemClock(),
            new_ids=lambda count: [f"p{next(ids)}" for _ in range(count)],
            most_rows=most_rows,
            counts_first=counts_first,
        )

    def ask(self, requests: Sequence[Sequence[float]], rows: Rows | None = None) -> list[Answer] | None:
        found: list[Answer] = []

        def done(answers: Answered) -> None:
            self.events.append(f"{len(self.sink.records)} written, {len(self.observer.answers)} counted")
            found.extend(answers)

        loads = [load for request in requests for load in request]
        counts = [len(request) for request in requests]
        arrived = SystemClock.monotonic() - 0.5
        return found if self.together(self.serving, rows or rows_of(*loads), counts, arrived, done) else None


CHANCES = st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=4), min_size=1, max_size=12)


@given(CHANCES, st.sampled_from([1, 2, 5, 1024]), st.sampled_from([None, 1, 3]), st.sampled_from([0.0, 0.5, 1.0]))
def test_each_has_its_own_answer_and_the_record_of_one_that_came_alone(
    requests: list[list[float]], most: int, batch_rows: int | None, share: float
) -> None:
    yard = Yard(most_rows=most, batch_rows=batch_rows, log_payloads=share, redact=frozenset({"price"}))
    answers = yard.ask(requests)
    assert answers is not None
    assert [answer.answers.scores for answer in answers] == requests
    assert [answer.prediction_id for answer in answers] == [f"p{place}" for place in range(len(requests))]
    # Nobody's rows are torn apart, and no batch is larger than it may be unless one request is.
    least = min(most, batch_rows or most)
    assert all(rows <= least or count == 1 for count, rows in yard.observer.batches)
    assert sum(count for count, _ in yard.observer.batches) == len(requests)
    assert [load for batch in yard.runtime.loads for load in batch] == [load for one in requests for load in one]
    assert yard.observer.answers == [(1, "champion", len(one)) for one in requests]

    for request, answer in zip(requests, answers, strict=True):
        ask = Ask(Query("power", rows_of(*request), NOW, 0.0), yard.serving, answer.prediction_id)
        bound = yard.version.binder.bind(ask.query.rows)
        alone = list(answer_block(ask, yard.version, "champion", bound, answer.answers, 0.0).events())
        together = [record for record in yard.sink.records if record.id.startswith(f"{answer.prediction_id}/")]
        assert [record.features for record in together] == [event["features"] for event in alone]
        assert [record.prediction for record in together] == [event["prediction"] for event in alone]
        assert [record.score for record in together] == [event["score"] for event in alone]
        assert {record.sampled for record in together} == {samples(answer.prediction_id, share)}
        assert {record.revision for record in together} == {7}
        assert all(record.latency_ms >= 500 and record.event_time == record.arrival for record in together)
        assert all("price" not in record.features for record in together)


@pytest.mark.parametrize(
    ("requests", "rows"),
    [
        ([[0.5], [POISON]], None),
        ([[0.5], [-1.0]], None),
        ([[0.5], [0.5]], Rows(2, {"load": [0.5, "x"], "price": [0.5] * 2, "day": ["mon"] * 2})),
        ([[0.5], [0.5]], Rows(2, {"load": [0.5, 1e39], "price": [0.5] * 2, "day": ["mon"] * 2})),
    ],
    ids=["it breaks", "no finite chance", "a text", "too large"],
)
def test_where_one_is_out_of_the_ordinary_nothing_is_done(requests: list[list[float]], rows: Rows | None) -> None:
    yard = Yard()
    assert yard.ask(requests, rows) is None
    assert yard.sink.records == [] and yard.observer.answers == [] and yard.observer.batches == []
    assert yard.observer.failures == [] and yard.events == []


def test_a_runtime_that_is_away_leaves_all_to_be_asked_alone() -> None:
    yard = Yard()
    yard.runtime.away = True
    assert yard.ask([[0.5]]) is None
    assert yard.sink.records == []


def test_records_are_written_before_the_answers_leave_and_counts_follow_where_nothing_outlives_the_process() -> None:
    behind, before = Yard(), Yard(counts_first=True)
    behind.ask([[0.5], [0.5]])
    before.ask([[0.5], [0.5]])
    assert behind.events == ["2 written, 0 counted"]
    assert before.events == ["2 written, 2 counted"]
    assert len(behind.observer.answers) == 2


def answered(labels: Sequence[list[Any]], *, as_table: bool = True) -> Answered:
    """Return answers to requests, each with its labels and other chances."""
    flat = [label for its in labels for label in its]
    chances = np.arange(2 * len(flat), dtype=np.float32) / 64
    table = AnswerTable([len(its) for its in labels], flat, chances, 2, chances[1::2].tolist())
    ids = [f"id-{place}" for place in range(len(labels))]
    return Answered(ids, "power", 3, "sha256:x", SIGNATURE, table if as_table else list(table))


# What bodies say.

NUMBER = st.one_of(st.floats(-1000, 1000, width=16), st.integers(-1000, 1000))


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[bytes], int | None]:
    """Draw the bodies of several requests that may be kin."""
    width, is_binary = draw(st.integers(1, 3)), draw(st.booleans())
    datatype, code = draw(st.sampled_from([("FP32", "<f4"), ("FP64", "<f8"), ("FP16", "<f2"), ("INT32", "<i4")]))
    bodies, length, rows = [], None, draw(st.integers(1, 3))
    extra: dict[str, Any] = {}
    if draw(st.booleans()):
        extra["parameters"] = draw(st.sampled_from([{"binary_data_output": True}, {"timeout": 9}, {"priority": 1}]))
    extra |= draw(st.sampled_from([{}, {}, {"outputs": [{"name": "predict"}]}]))
    for _ in range(draw(st.integers(1, 5))):
        if not is_binary:
            rows = draw(st.integers(1, 3))
        numbers = draw(st.lists(NUMBER, min_size=rows * width, max_size=rows * width))
        tensor: dict[str, Any] = {"name": "x", "shape": [rows, width], "datatype": datatype}
        if is_binary:
            tail = np.array(numbers).astype(code).tobytes()
            head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(tail)}}]} | extra).encode()
            bodies.append(head + tail)
            length = len(head)
        else:
            its = draw(st.sampled_from([{}, {"id": "mine"}]))
            bodies.append(json.dumps({"inputs": [tensor | {"data": numbers}]} | extra | its).encode())
    return bodies, length


@given(crowds())
def test_what_bodies_say_together_is_what_each_says(crowd: tuple[list[bytes], int | None]) -> None:
    bodies, length = crowd
    try:
        alone = [v2.decode(body, length) for body in bodies]
    except Invalid:
        with pytest.raises(Invalid):
            v2.decode_together([memoryview(body) for body in bodies], length)
        return
    found = v2.decode_together([memoryview(body) for body in bodies], length)
    if any(call.parameters or call.rows.matrix is None for call in alone):
        assert found is None
        return
    assert found is not None
    rows, counts, calls = found
    assert counts == [call.rows.count for call in alone]
    assert rows.count == sum(counts) and rows.matrix is not None and rows.named == {}
    matrices = [call.rows.matrix for call in alone]
    assert list(rows.matrix.values) == [value for one in matrices if one is not None for value in one.values]
    assert {rows.matrix.width} == {one.width for one in matrices if one is not None}
    assert [type(rows.matrix.values)] == list({type(one.values) for one in matrices if one is not None})
    assert [(call.id, call.wanted, call.binary) for call in calls] == [
        (call.id, call.wanted, call.binary) for call in alone
    ]


@pytest.mark.parametrize(
    "wanted", [(), ("predict",), ("predict_proba", "predict")], ids=["all", "the labels", "in another order"]
)
@pytest.mark.parametrize("labels", [[1, 0], [True, False], ["up", "down"], [0.5, 1.5]], ids=str)
@pytest.mark.parametrize("binary", [True, False])
def test_what_is_written_together_is_what_is_written_for_each(
    labels: list[Any], binary: bool, wanted: tuple[str, ...]
) -> None:
    call = v2.V2Call(rows_of(0.5), None, {}, tuple(v2.Wanted(name) for name in wanted), binary)
    even = [labels, labels[::-1], labels[:1] * 2, labels]
    own = [v2.V2Call(call.rows, f"mine-{n}", {}, call.wanted, binary) for n in range(4)]
    for found in (answered(even), answered([*even[:3], labels[:1]]), answered(even, as_table=False)):
        for calls in ([call] * 4, own):
            together = list(v2.encode_together(found, calls))
            assert together == [v2.encode(answer, one) for answer, one in zip(found, calls, strict=True)]


def test_who_asks_for_an_output_that_there_is_not_is_told() -> None:
    call = v2.V2Call(rows_of(0.5), None, {}, (v2.Wanted("nothing"),), True)
    for count in (1, 2):
        with pytest.raises(Invalid, match="is no output of this model"):
            list(v2.encode_together(answered([[1]] * count), [call] * count))


@pytest.mark.parametrize(
    "changed",
    [
        lambda body: body[:-1],
        lambda body: body + b"\0\0\0\0",
        lambda body: body.replace(b'"x"', b'"y"'),
        lambda body: body.replace(b'"inputs"', b'"\\u0069d": "mine", "inputs"'),
    ],
    ids=["a byte less", "a number more", "another name", "an id that is written otherwise"],
)
def test_bodies_that_differ_in_more_than_their_numbers_are_left_to_be_read_alone(changed: Any) -> None:
    tail = np.ones(4, "<f4").tobytes()
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    other = changed(head + tail)
    length = other.index(b"}]}") + 3
    assert v2.decode_together([memoryview(head + tail), memoryview(other)], len(head)) is None
    assert length >= len(head) or other != head + tail
    if b"\\u0069d" in other:
        assert v2.decode_together([memoryview(other)] * 2, length) is None


def test_who_asks_for_what_there_is_not_is_refused_alone() -> None:
    asked, bodies, heard = hot._asked("/v2/models/power/infer", {}), [], []
    for more in ({}, {"outputs": [{"name": "secret"}]}, {"outputs": [{"name": "predict"}]}):
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]}
        bodies.append(memoryview(json.dumps({"inputs": [tensor]} | more).encode()))

    class Front:
        counted = 0

        def plain(self, model: str) -> object:
            return self

        def ask_together(self, serving: Any, rows: Rows, counts: list[int], arrived: float, done: Any) -> bool:
            done(answered([[1] * count for count in counts]))
            return True

        def took(self, model: str, parse_s: float, encode_s: float, times: int) -> None:
            self.counted += times

    front: Any = Front()
    path = hot.HotPath(front, front)
    assert asked is not None
    assert path.infer_together(asked, bodies, 0.0, heard.extend)
    assert [answer.status for answer in heard] == [200, 400, 200]
    assert [b"secret" in answer.content for answer in heard] == [False, True, False]
    assert [b"id-0" in heard[0].content, b"id-2" in heard[2].content, front.counted] == [True, True, 3]
