"""Events in blocks: they leave what their JSON leaves, and what is wrong is named where it is in the block."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from drift_fakes import MODEL, START, V1, V2, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelyard_client import DriftClient
from modelyard_common.db import Database
from modelyard_common.errors import Invalid
from modelyard_contracts.events_v1 import PredictionEvent
from modelyard_contracts.frames import framed
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE, PredictionBlock, name_frame
from modelyard_drift.adapters.tables import PredictionRow
from pydantic import TypeAdapter
from sqlalchemy import select

ARRIVAL = START + timedelta(seconds=30)


def a_block(number: int = 0, **changes: Any) -> PredictionBlock:
    block = PredictionBlock(
        id=f"b{number}",
        rows=2,
        model=MODEL,
        revision=1,
        champion=V1,
        version=V1,
        role="champion",
        event_times=(START,),
        arrival=ARRIVAL,
        latency_ms=0.5,
        routing_key="",
        sampled=True,
        names=("heat", "noise"),
        values=(0.5, 1, "a secret", None),
        predictions=(1, 0),
        scores=(0.9, None),
    )
    return block._replace(**changes)


def post(world: World, blocks: Sequence[Any]) -> httpx.Response:
    return post_bytes(world, body_of(*blocks))


def body_of(*blocks: Any) -> bytes:
    return name_frame("test") + framed(map(msgspec.msgpack.encode, blocks))


def post_bytes(world: World, body: bytes, media_type: str = BLOCKS_MEDIA_TYPE) -> httpx.Response:
    return world.client.post("/v1/events", content=body, headers={"content-type": media_type})


def as_json(block: PredictionBlock) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = TypeAdapter(list[dict[str, Any]]).dump_python(list(block.events()), mode="json")
    return events


def left(database: Database, prefix: str) -> list[dict[str, Any]]:
    """Return what is in the log of all ids that begin so, without what tells two sendings apart."""
    query = select(PredictionRow.__table__).where(PredictionRow.id.like(f"{prefix}%")).order_by(PredictionRow.seq)
    with database.read() as session:
        rows = [dict(row) for row in session.execute(query).mappings()]
    return [row | {"id": row["id"].removeprefix(prefix), "seq": None} for row in rows]


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.none(),
    st.text("aé€", max_size=4),
)
NAN = st.just(float("nan"))
NUMBERS = {
    "f": st.one_of(NAN, st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "d": st.one_of(NAN, st.floats(allow_nan=False, allow_infinity=False)),
}
TIMES = st.datetimes(datetime(2025, 1, 1), datetime(2025, 12, 31), timezones=st.just(UTC))


def _packed(form: str, numbers: list[float]) -> bytes:
    return struct.pack(form, *numbers)


@st.composite
def blocks(draw: st.DrawFn) -> PredictionBlock:
    rows, width = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    flat = rows * width
    of_all = {"min_size": rows, "max_size": rows}
    in_bytes = [
        st.lists(numbers, min_size=flat, max_size=flat).map(partial(_packed, f"<{flat}{code}"))
        for code, numbers in NUMBERS.items()
    ]
    values = draw(st.one_of(st.lists(VALUES, min_size=flat, max_size=flat), *in_bytes))
    return PredictionBlock(
        id="",
        rows=rows,
        model=MODEL,
        revision=draw(st.integers(0, 2**53)),
        champion=V1,
        version=draw(st.sampled_from([V1, V2])),
        role=draw(st.sampled_from(["champion", "candidate", "shadow"])),
        event_times=draw(st.one_of(st.lists(TIMES, min_size=1, max_size=1), st.lists(TIMES, **of_all))),  # type: ignore[arg-type]
        arrival=draw(TIMES),
        latency_ms=draw(st.floats(0, 1e6)),
        routing_key=draw(st.text("kéy", max_size=3)),
        sampled=draw(st.booleans()),
        names=tuple(f"feature {number}" for number in range(width)),
        values=values,
        predictions=draw(st.one_of(st.just([]), st.lists(VALUES, **of_all))),  # type: ignore[arg-type]
        scores=draw(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(0, 1)), **of_all))),  # type: ignore[arg-type]
        error=draw(st.sampled_from([None, "it failed (ValueError)"])),
        traceparent=draw(st.sampled_from([None, f"00-{'a' * 32}-{'b' * 16}-01"])),
        first_row=draw(st.integers(0, 300)),
        queue_ms=0.1,
    )


def test_a_block_and_its_json_leave_the_same(world: World, any_database: Database) -> None:
    number = count()

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.lists(blocks(), min_size=1, max_size=3))
    def same(drawn: list[PredictionBlock]) -> None:
        run = next(number)
        named = [block._replace(id=f"{run}-{place}") for place, block in enumerate(drawn)]
        sent = post(world, [block._replace(id=f"block-{block.id}") for block in named])
        events = [event for block in named for event in as_json(block._replace(id=f"event-{block.id}"))]
        told = world.client.post("/v1/events", json={"source": "test", "events": events})

        assert (sent.status_code, told.status_code) == (200, 200), sent.text + told.text
        assert sent.json() | {"last_seq": 0} == told.json() | {"last_seq": 0}
        assert left(any_database, f"block-{run}-") == left(any_database, f"event-{run}-") != []

    same()


def test_an_event_is_known_again_however_it_comes(world: World) -> None:
    first = post(world, [a_block(1), a_block(2)]).json()
    again = post(world, [a_block(1), a_block(2)]).json()
    told = world.client.post("/v1/events", json={"source": "t", "events": as_json(a_block(2))}).json()

    assert (first["accepted"], first["duplicates"], first["last_seq"]) == (4, 0, 4)
    assert (again["accepted"], again["duplicates"], again["last_seq"]) == (0, 4, 4)
    assert (told["accepted"], told["duplicates"]) == (0, 2)
    world.turn()
    assert world.get("status")["requests"] == 4


def test_what_an_event_of_a_block_has_is_what_the_contract_has() -> None:
    (event, _) = a_block().events()

    assert set(event) == set(PredictionEvent.model_fields)


SECRET = "s3cret"
DATA = struct.pack("<4d", 0.5, float("nan"), float("inf"), 1.0)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"id": "x" * 300}, "id"),
        ({"id": "x\0"}, "id"),
        ({"model": f"{SECRET}!"}, "model"),
        ({"revision": -1}, "revision"),
        ({"revision": 2**53 + 1}, "revision"),
        ({"champion": SECRET}, "champion"),
        ({"version": SECRET}, "version"),
        ({"routing_key": SECRET * 100}, "routing_key"),
        ({"event_times": ("2026-01-01T00:00:00",)}, "event_times[0]"),
        ({"event_times": (START, "2026-01-01T00:00:00")}, "event_times[1]"),
        ({"arrival": "2026-01-01T00:00:00"}, "arrival"),
        ({"latency_ms": -1.0}, "latency_ms"),
        ({"latency_ms": float("nan")}, "latency_ms"),
        ({"error": f"{SECRET}\0"}, "error"),
        ({"values": (0.5, 1, float("inf"), None)}, "values[2]"),
        ({"values": (0.5, 1, 2, float("nan"))}, "values[3]"),
        ({"values": DATA}, "values[2]"),
        ({"predictions": (1, float("nan"))}, "predictions[1]"),
        ({"scores": (float("inf"), None)}, "scores[0]"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_what_json_refuses_is_refused_and_named(shared_world: World, changes: dict[str, Any], path: str) -> None:
    wrong = a_block(1, **changes)
    response = post(shared_world, [a_block(0), wrong])
    events = as_json(wrong._replace(values=wrong.plain_values()))
    told = shared_world.client.post("/v1/events", json={"source": "t", "events": events})

    # What cannot be said in JSON at all (a number that is not finite) is null there, and so allowed in places.
    assert told.status_code == 422 or any(word in path for word in ("values", "predictions", "scores"))
    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == [f"blocks[1].{path}"]
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"rows": 0}, "rows"),
        ({"rows": "2"}, "rows"),
        ({"first_row": -1}, "first_row"),
        ({"role": SECRET}, "role"),
        ({"event_times": ()}, "event_times"),
        ({"event_times": (START,) * 3}, "event_times"),
        ({"event_times": (5, START)}, "event_times[0]"),
        ({"names": ("heat", "heat")}, "names"),
        ({"names": ("heat",)}, "values"),
        ({"values": (0.5, 1, [SECRET], None)}, "values[2]"),
        ({"values": (0.5, 1, SECRET.encode(), None)}, "values[2]"),
        ({"values": b"12345678" * 3}, "values"),
        ({"values": b"12345678" * 3 + b"1234567"}, "values"),
        ({"predictions": (1,)}, "predictions"),
        ({"scores": ()}, "scores"),
        ({"sampled": SECRET}, "sampled"),
        ({"role": f"{SECRET} - at `$[99]`"}, "role"),
        ({"role": f"{SECRET} - at `$[3]`"}, "role"),
        ({"role": f"{SECRET} - at `$[{'9' * 5000}]`"}, "role"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_a_block_that_does_not_fit_together_is_refused_and_named(
    shared_world: World, changes: dict[str, Any], path: str
) -> None:
    response = post(shared_world, [a_block(0), a_block(1, **changes)])

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == [f"blocks[1].{path}"]
    assert SECRET not in response.text


GOOD = body_of(a_block())
NESTED = b"\xdc\x00\x15" + msgspec.msgpack.encode(a_block())[3:] + b"\x91" * 100_000 + b"\xc0"
NO_FRAMES = "the body is no frames"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", NO_FRAMES),
        (b"\x91" * 100_000, NO_FRAMES),
        (msgspec.msgpack.encode(["t", []]), NO_FRAMES),
        (name_frame("t")[:-1], NO_FRAMES),
        (framed([b"\xff\xff"]), NO_FRAMES),
        (GOOD[:-1], "blocks[0]: is empty, or cut off"),
        (GOOD + b"\0", "blocks[1]: is cut off"),
        (GOOD + bytes(8), "blocks[1]: is empty, or cut off"),
        (GOOD + b"\xff\xff\xff\xff" + bytes(4), "blocks[1]: is empty, or cut off"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "blocks[0]: has another sum than was written with it: it is damaged"),
        (body_of(a_block(), {}), "blocks[1]: Expected `array`, got `object`"),
        (body_of(["id", 1]), "blocks[0]: Expected `array` of at least length 16, got 2"),
        (name_frame("t") + framed([b"\xc1"]), "blocks[0]: is not MessagePack"),
        (name_frame("t") + framed([NESTED]), "blocks[0]: is not MessagePack"),
        (name_frame("t") + framed([b"\x91" * 100_000]), "blocks[0]: Expected `array` of at least length 16, got 1"),
        (name_frame("t") + framed([b"\xdc\x00\x10\xa2\xff\xff" + b"\x00" * 15]), "blocks[0]: is not MessagePack"),
    ],
    ids=[
        "empty",
        "deep",
        "array",
        "cut-name",
        "utf-8",
        "cut",
        "more",
        "zeros",
        "huge",
        "damaged",
        "no-array",
        "short",
        "no-opcode",
        "deep-field",
        "deep-block",
        "block-utf-8",
    ],
)
def test_a_body_that_is_none_is_refused_clearly(shared_world: World, body: bytes, says: str) -> None:
    response = post_bytes(shared_world, body)

    assert response.status_code == 422
    assert response.json()["detail"].startswith(says)


def test_of_a_body_with_something_wrong_nothing_is_taken(world: World) -> None:
    assert post(world, [a_block(0), a_block(1, latency_ms=-1.0)]).status_code == 422
    assert post(world, [a_block(0)]).json()["accepted"] == 2


def test_fields_that_a_newer_writer_added_are_passed_over(world: World, any_database: Database) -> None:
    longer = [*a_block(0), {"of": ["a", "version", "to come"]}, None]

    assert post(world, [longer]).json()["accepted"] == 2
    assert post(world, [a_block(0)]).json()["duplicates"] == 2
    assert [row["score"] for row in left(any_database, "b0")] == [0.9, None]


def test_more_rows_than_json_may_have_are_refused(world: World) -> None:
    many = a_block(names=(), values=(), predictions=(), scores=None)

    assert post(world, [many._replace(rows=5000)]).json()["accepted"] == 5000
    response = post(world, [many._replace(id="b1", rows=4999), a_block(2)])

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"path": "blocks", "message": "have 5001 rows; at most 5000 are taken at once"}
    ]
    assert post(world, [many._replace(rows=2**63)]).status_code == 422


def test_more_blocks_than_rows_that_are_taken_are_not_read(shared_world: World) -> None:
    one = framed([msgspec.msgpack.encode(a_block())])
    response = post_bytes(shared_world, name_frame("t") + one * 5000 + framed([b"\xc1"]) * 50_000)

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == ["blocks[5000]"]
    response = post_bytes(shared_world, name_frame("t") + one * 5001)
    assert response.json()["errors"] == [
        {"path": "blocks", "message": "are more than 5000; at most as many rows are taken at once"}
    ]


def test_a_text_that_is_said_once_for_many_rows_is_bounded(make_world: Callable[..., World]) -> None:
    world = make_world(max_body_bytes=100_000)
    block = a_block(rows=1000, names=(), values=(), predictions=(), scores=None, error="x" * 50_000)

    response = post(world, [block])

    assert response.status_code == 413
    assert "100000 are taken" in response.json()["detail"]
    assert post(world, [block._replace(rows=1)]).status_code == 200


@pytest.mark.parametrize(
    "media_type", ["application/msgpack", "text/plain", "application/vnd.modelyard.prediction-blocks.v4"]
)
def test_another_media_type_is_no_body(shared_world: World, media_type: str) -> None:
    response = post_bytes(shared_world, GOOD, media_type)

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == ["body"]


def test_the_media_type_may_have_parameters_and_capitals(shared_world: World) -> None:
    assert post_bytes(shared_world, GOOD, f"{BLOCKS_MEDIA_TYPE.upper()}; v=1").status_code == 200


def test_both_media_types_are_in_the_description(shared_world: World) -> None:
    described = shared_world.client.get("/openapi.json").json()["paths"]["/v1/events"]["post"]["requestBody"]["content"]

    assert set(described) == {"application/json", BLOCKS_MEDIA_TYPE}
    block = described[BLOCKS_MEDIA_TYPE]["schema"]["prefixItems"][1]["items"]
    titles = [field["title"].lower().replace(" ", "_") for field in block["prefixItems"]]
    assert tuple(titles) == PredictionBlock._fields


def test_the_client_sends_blocks_and_tells_what_is_wrong_with_them(shared_world: World) -> None:
    with DriftClient(str(shared_world.client.base_url)) as client:
        receipt = client.send_blocks("test", framed(msgspec.msgpack.encode(a_block(number)) for number in range(20)))
        with pytest.raises(Invalid, match="wrong fields") as refused:
            client.send_blocks("test", framed([msgspec.msgpack.encode(a_block(21, latency_ms=-1.0))]))

    assert receipt.accepted + receipt.duplicates == 40
    assert [error.path for error in refused.value.errors] == ["blocks[0].latency_ms"]


_DIGEST = "d9477368613235363a" + "31" * 64
_FIRST = (
    f"a2623002a56d6574657201{_DIGEST}{_DIGEST}a86368616d70696f6e91d6ff6955b900d6ff6955b91ecb3fe0000000000000a0c3"
    "92a468656174a56e6f69736594cb3fe000000000000001a161c092010092cb3feccccccccccccdc0"
)
"""The fields that every block has."""


@pytest.mark.parametrize(
    "written",
    [f"dc0010{_FIRST}", f"dc0014{_FIRST}c0c000cb3fd0000000000000"],
    ids=["with the first fields", "with queue_ms"],
)
def test_bytes_that_were_written_once_are_still_read(world: World, any_database: Database, written: str) -> None:
    response = post_bytes(world, name_frame("test") + framed([bytes.fromhex(written)]))

    assert response.json()["accepted"] == 2
    first, second = left(any_database, "b0")
    assert (first["id"], first["event_time"], first["arrival"]) == ("/0", START, ARRIVAL)
    assert (first["features"], first["prediction"], first["score"]) == ('{"heat":0.5,"noise":1}', "1", 0.9)
    assert (second["features"], second["prediction"], second["score"]) == ('{"heat":"a","noise":null}', "0", None)
