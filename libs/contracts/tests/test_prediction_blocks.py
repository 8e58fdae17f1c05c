"""Blocks mean their events: the fields only grow, what does not fit together is named, a body is what it says."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.events_v1 import PredictionEvent
from modelyard_contracts.frames import framed, payloads_in
from modelyard_contracts.prediction_blocks_v1 import PredictionBlock, name_frame

FIRST = [
    *("id", "rows", "model", "revision", "champion", "version", "role", "event_times", "arrival", "latency_ms"),
    *("routing_key", "sampled", "names", "values", "predictions", "scores"),
]
LATER = ["error", "traceparent", "first_row", "queue_ms"]
AT = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def a_block(**changes: Any) -> PredictionBlock:
    block = PredictionBlock(
        id="p",
        rows=2,
        model="power",
        revision=1,
        champion=DIGEST,
        version=DIGEST,
        role="champion",
        event_times=(AT,),
        arrival=AT,
        latency_ms=0.5,
        routing_key="",
        sampled=True,
        names=("a", "b"),
        values=(0.5, "x", None, 1),
        predictions=(1, 0),
        scores=None,
    )
    return block._replace(**changes)


def test_fields_are_only_added_at_the_end_and_with_a_default() -> None:
    fields = list(PredictionBlock._fields)

    assert fields[: len(FIRST) + len(LATER)] == FIRST + LATER
    assert fields[len(FIRST) :] == list(PredictionBlock._field_defaults)


def test_the_events_of_a_block_are_those_of_the_contract() -> None:
    events = [PredictionEvent(**event) for event in a_block(first_row=7).events()]

    assert [(event.id, event.features, event.prediction) for event in events] == [
        ("p/7", {"a": 0.5, "b": "x"}, 1),
        ("p/8", {"a": None, "b": 1}, 0),
    ]
    assert {event.event_time for event in events} == {AT}
    assert all(event.model_fields_set == set(PredictionEvent.model_fields) for event in events)


@pytest.mark.parametrize("code", ["f", "d"])
def test_floats_in_bytes_are_values_and_nan_is_a_missing_one(code: str) -> None:
    block = a_block(values=struct.pack(f"<4{code}", 0.5, float("nan"), -1.0, 2.0))

    assert [event["features"] for event in block.events()] == [{"a": 0.5, "b": None}, {"a": -1.0, "b": 2.0}]
    assert list(block.misfits()) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rows": 0, "values": (), "predictions": ()}, "rows"),
        ({"first_row": -1}, "first_row"),
        ({"event_times": ()}, "event_times"),
        ({"names": ("a", "a")}, "names"),
        ({"values": (0.5,)}, "values"),
        ({"values": bytes(31)}, "values"),
        ({"values": bytes(24)}, "values"),
        ({"values": b""}, "values"),
        ({"predictions": (1,)}, "predictions"),
        ({"scores": (0.5,)}, "scores"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_what_does_not_fit_the_other_fields_is_named(changes: dict[str, Any], field: str) -> None:
    assert [name for name, _ in a_block(**changes).misfits()] == [field]


@pytest.mark.parametrize("size", [1, 15, 20, 24, 31, 33, 64])
def test_bytes_that_are_no_floats_of_all_rows_are_no_values(size: int) -> None:
    with pytest.raises(ValueError, match="no floats"):
        a_block(values=bytes(size)).plain_values()


@given(st.integers(1, 9), st.sampled_from([None, "f", "d"]))
def test_parts_have_the_same_events(most: int, code: str | None) -> None:
    count = 7
    numbers = [float(number) for number in range(count * 2)]
    block = a_block(
        rows=count,
        values=struct.pack(f"<{count * 2}{code}", *numbers) if code else numbers,
        predictions=list(range(count)),
        scores=[0.5] * count,
    )

    parts = list(block.parts(most))

    assert all(part.rows <= most and not list(part.misfits()) for part in parts)
    assert [event for part in parts for event in part.events()] == list(block.events())


def test_a_body_begins_with_a_frame_that_holds_the_name_of_the_source() -> None:
    assert list(payloads_in(name_frame("é") + framed([b"\x90"]))) == [b"\xc3\xa9", b"\x90"]
