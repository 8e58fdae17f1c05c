"""What a body may become: rows and objects are counted before anything is made of them; long bodies are read apart."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import GOOD_ROW, CountingObserver, Platform, a_server, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.auth.principals import ANONYMOUS
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Invalid, NotFound, TooLarge
from modelyard_common.raw import RawAnswer, RawRequest
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.api import hot
from modelyard_inference.api.bodies import opened
from modelyard_inference.api.codecs import scoring, v2, v2_grpc
from modelyard_inference.api.codecs.bounds import LARGE_BYTES, MOST_COLUMNS, check_json
from modelyard_inference.api.front import Bounds, Front, Labels
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.api.grpc.edge import read
from modelyard_inference.api.grpc.fields import check_fields, made_bytes
from modelyard_inference.api.hot import HotPath
from modelyard_inference.domain.answers import Answers
from modelyard_inference.domain.requests import Answer, Late, Query
from modelyard_inference.usecases.serving import ServedModels

MOST = 100
NAMES = ["load", "price", "day"]
LONG = " " * LARGE_BYTES


def rows_as(form: str, rows: int) -> bytes:
    """Return a body of so many rows."""
    documents: dict[str, Any] = {
        "split": {"dataframe_split": {"columns": ["load"], "data": [[1]] * rows}},
        "records": {"dataframe_records": [{"load": 1}] * rows},
        "flat instances": {"instances": [1] * rows},
        "instances": {"instances": [[1, 2]] * rows},
        "columns": {"inputs": {"load": [1] * rows}},
        "columns of one": {"inputs": {"load": [[1]] * rows}},
    }
    if form == "csv":
        return b"load\n" + b"1\n" * rows
    return json.dumps(documents[form]).encode()


DECODERS: dict[str, Callable[..., scoring.ScoringCall]] = {
    "csv": scoring.decode_csv,
    **dict.fromkeys(["split", "records", "flat instances", "instances", "columns"], scoring.decode_json),
    "columns of one": scoring.decode_json,
}


@pytest.mark.parametrize("form", DECODERS)
def test_as_many_rows_as_are_taken_are_decoded_and_one_more_is_too_large(form: str) -> None:
    assert DECODERS[form](rows_as(form, MOST), MOST).rows.count == MOST
    with pytest.raises(TooLarge, match=r"101 rows; at most 100|more than 100 rows"):
        DECODERS[form](rows_as(form, MOST + 1), MOST)


@pytest.mark.parametrize("form", [{"instances": [1] * 101}, {"inputs": [[1]] * 101}, {"inputs": {"load": [1] * 101}}])
def test_rows_of_v1_are_counted_too(form: dict[str, Any]) -> None:
    with pytest.raises(TooLarge, match="101 rows; at most 100"):
        scoring.decode_v1(json.dumps(form).encode(), MOST)


def test_csv_is_read_no_further_than_the_rows_that_are_taken() -> None:
    with pytest.raises(TooLarge, match="more than 100 rows"):
        scoring.decode_csv(b"load\n" + b"1\n" * MOST + b'2\n"this is never looked at', MOST)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"load\n" + b"\n" * (1_000_001 + MOST), "more than 1000100 lines"),
        (b"load\n" + b"," * 1_000_001, "a line of more than 1000000 commas"),
    ],
)
def test_csv_of_empty_lines_or_empty_fields_is_too_large(body: bytes, told: str) -> None:
    with pytest.raises(TooLarge, match=told):
        scoring.decode_csv(body, MOST)


def test_csv_may_have_a_line_for_each_row_however_many_are_taken() -> None:
    assert scoring.decode_csv(b"load\n" + b"1\n" * 1_000_100, 1_000_100).rows.count == 1_000_100


def test_a_flat_list_is_one_column() -> None:
    rows = scoring.decode_json(b'{"instances": [1, "a", null]}').rows

    assert (rows.count, rows.positional) == (3, ([1, "a", None],))


WIDE = {
    "a row": {"instances": [[1] * (MOST_COLUMNS + 1)]},
    "a table": {
        "dataframe_split": {
            "columns": [str(place) for place in range(MOST_COLUMNS + 1)],
            "data": [[1] * (MOST_COLUMNS + 1)],
        }
    },
    "columns": {"inputs": {str(place): [1] for place in range(MOST_COLUMNS + 1)}},
    "records": {"instances": [{str(place): 1} for place in range(MOST_COLUMNS + 1)]},
}


@pytest.mark.parametrize("form", WIDE)
def test_more_columns_than_any_model_has_features_are_too_large(form: str) -> None:
    with pytest.raises(TooLarge, match=f"{MOST_COLUMNS + 1} columns; at most {MOST_COLUMNS}"):
        scoring.decode_json(json.dumps(WIDE[form]).encode())


def test_records_that_share_no_names_are_too_large_before_their_table_is_made() -> None:
    records = [{f"{row}.{place}": 1 for place in range(4)} for row in range(1_000)]

    with pytest.raises(TooLarge, match="4000 columns, of which most rows name few"):
        scoring.decode_json(json.dumps({"dataframe_records": records}).encode())


def test_records_that_leave_most_out_are_taken() -> None:
    records: list[dict[str, int]] = [{str(row % 200): 1} for row in range(10_000)]

    rows = scoring.decode_json(json.dumps({"dataframe_records": records}).encode()).rows

    assert (rows.count, len(rows.named)) == (10_000, 200)


OBJECTS = {
    "lists": b'{"x": [' + b"[]," * 1_000_200 + b"[]]}",
    "objects": b'{"x": [' + b"{}," * 100_200 + b"{}]}",
    "names": b'{"x": {' + b",".join(b'"%d":1' % place for place in range(260_000)) + b"}}",
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize(
    "decode", [scoring.decode_json, scoring.decode_v1, lambda body, most: v2.decode(body, None, most)]
)
def test_json_of_too_many_objects_is_refused_undecoded(kind: str, decode: Callable[[bytes, int], Any]) -> None:
    with pytest.raises(TooLarge, match=r"lists or objects|object of more than"):
        decode(OBJECTS[kind] + b" but no JSON", MOST)


def test_what_stands_in_texts_is_no_object() -> None:
    texts = ["[" * 1_100_000, "{" * 200_000, ":" * 300_000, '\\"[\\\\' * 300_000]

    check_json(json.dumps({"instances": texts}).encode(), MOST)


@given(st.lists(st.text(alphabet='[]{}:"\\x,', max_size=12), max_size=8), st.integers(0, 9))
def test_objects_outside_texts_are_counted_whatever_the_texts_hold(texts: list[str], objects: int) -> None:
    body = json.dumps({"a": ["{" * LARGE_BYTES, texts, *[{}] * objects]}).encode()
    as_many = 1 + objects - 100_000  # that are taken beside one a row

    check_json(body, as_many)
    with pytest.raises(TooLarge):
        check_json(body, as_many - 1)


def a_tensor(rows: int, **changes: Any) -> dict[str, Any]:
    return {"name": "load", "shape": [rows], "datatype": "FP64", "data": [1] * rows} | changes


def test_rows_of_a_long_v2_request_are_counted_before_its_values_are_looked_at() -> None:
    wrong = a_tensor(MOST + 1, data=["no number"], datatype="INT8")

    with pytest.raises(TooLarge, match="101 rows"):
        v2.decode(json.dumps({"inputs": [wrong], "x": LONG}).encode(), None, MOST)


@pytest.mark.parametrize("kept", [True, False])
def test_rows_of_binary_tensors_are_counted_before_they_are_unpacked(kept: bool) -> None:
    tensor = {"name": "day", "shape": [MOST + 1], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}
    document = {"inputs": [tensor]} | ({} if kept else {"id": "a"})
    head = json.dumps(document).encode()

    with pytest.raises(TooLarge, match="101 rows"):
        v2.decode(head + b"\0" * 4, len(head), MOST)


def test_rows_of_a_body_that_is_one_tensor_are_counted_before_its_values_are_looked_at() -> None:
    signature = Signature(task="regression", features=(Column(name="x", type="boolean"),), target="y")
    serving = SimpleNamespace(champion=SimpleNamespace(signature=signature))
    front = SimpleNamespace(bounds=Bounds(timeout_s=5, max_rows=MOST, max_concurrent=1), find=lambda model: serving)
    path = HotPath(cast(Any, front), cast(Any, None))
    heads = hot._heads({b"inference-header-content-length": b"0"})

    assert path._call("power", None, heads, b"\x01" * MOST).rows.count == MOST
    with pytest.raises(TooLarge, match="101 rows"):
        path._call("power", None, heads, b"\x02" * (MOST + 1))


def test_more_inputs_than_any_model_has_are_too_large() -> None:
    inputs = [{"name": "", "shape": [1], "datatype": ""}] * (MOST_COLUMNS + 1)

    with pytest.raises(TooLarge, match="inputs: has"):
        v2.decode(json.dumps({"inputs": inputs}).encode(), None, MOST)


def of_grpc(rows: int) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="load", datatype="INT64", shape=[rows], contents=pb.InferTensorContents(int64_contents=[1] * rows)
    )
    return pb.ModelInferRequest(model_name="power", inputs=[tensor])


def test_rows_of_typed_contents_are_counted_before_they_are_taken_out() -> None:
    assert v2_grpc.decode(of_grpc(MOST), MOST).rows.count == MOST
    with pytest.raises(TooLarge, match="101 rows"):
        v2_grpc.decode(of_grpc(MOST + 1), MOST)


EMPTY = {
    "inputs": b"\x2a\x00" * 300_000,
    "outputs": b"\x32\x00" * 300_000,
    "parameters": b"\x22\x00" * 300_000,
    "parameters of an input": b"\x2a\xc0\xcf\x24" + b"\x22\x00" * 300_000,
    "inputs behind a group": b"\x0b\x0c" + b"\x2a\x00" * 300_000,
}


@pytest.mark.parametrize("kind", EMPTY)
def test_messages_of_too_many_fields_are_refused_unparsed(kind: str) -> None:
    with pytest.raises(TooLarge, match="fields"):
        check_fields(EMPTY[kind] + b"\x07", MOST)


def test_a_long_message_that_is_none_is_told_so() -> None:
    for broken in (b"\x2a", b"\x07", b"\xff" * 11):
        message = of_grpc(70_000).SerializeToString() + broken
        check_fields(message, MOST)
        with pytest.raises(Invalid, match="is not a ModelInferRequest"):
            read(pb.ModelInferRequest(), message)


def test_a_long_message_of_many_features_is_read() -> None:
    tensors = [
        pb.ModelInferRequest.InferInputTensor(name=f"{LONG[:20]}{place}", datatype="FP64", shape=[1])
        for place in range(MOST_COLUMNS)
    ]
    message = pb.ModelInferRequest(inputs=tensors, raw_input_contents=[b"\0" * 8] * MOST_COLUMNS).SerializeToString()

    check_fields(message, MOST)
    assert v2_grpc.decode(read(pb.ModelInferRequest(), message), MOST).rows.count == 1


class Unserved:
    """Has no model."""

    plain = None

    async def __call__(self, query: Query) -> Any:
        """Raise NotFound."""
        raise NotFound("there is no such model")


def of_texts(texts: list[bytes], rows: int = 1) -> bytes:
    contents = pb.InferTensorContents(bytes_contents=texts)
    tensor = pb.ModelInferRequest.InferInputTensor(name="day", datatype="BYTES", shape=[rows], contents=contents)
    return pb.ModelInferRequest(inputs=[tensor]).SerializeToString()


def test_messages_of_too_many_texts_are_refused_unparsed() -> None:
    most, half = [b""] * (1_000_000 + MOST), of_texts([b""] * 500_051)

    check_fields(of_texts(most), MOST)
    check_fields(of_texts([b"B" * 2_000_000]), MOST)  # as it stands before each text
    long_tags = v2_grpc._field(5, v2_grpc._field(5, b"\xc2\x00\x00" * 1_000_101))
    for many in (of_texts([*most, b""]), half + half, long_tags):
        with pytest.raises(TooLarge, match=r"more than 1000100 values in contents"):
            check_fields(many, MOST)


def test_texts_are_counted_before_they_are_taken_out() -> None:
    request = pb.ModelInferRequest.FromString(of_texts([b""] * 500_000))

    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match=r"inputs\[0\].contents: has 500000 values for a shape of 1"):
            v2_grpc.decode(request, MOST)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000


def of_raw(*datatypes: str, **more: Any) -> bytes:
    """Return a request of raw tensors of 100 kB each."""
    tensor, raw = pb.ModelInferRequest.InferInputTensor, [bytes(100_000)] * len(datatypes)
    inputs = [tensor(name=f"{place}", datatype=one, shape=[5, 5000]) for place, one in enumerate(datatypes)]
    return pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw, **more).SerializeToString()


def test_the_numbers_of_one_raw_tensor_become_no_objects() -> None:
    assert made_bytes(of_raw("FP32")) < 100
    assert made_bytes(of_raw("FP32")[:-1]) < 100  # whoever parses it says what is wrong
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name=f"{place}") for place in range(100)]
    for other in (of_raw("BYTES"), of_raw("BOOL"), of_raw("FP32", "FP32"), of_raw("FP32", outputs=outputs)):
        assert made_bytes(other) == len(other)
    typed = of_grpc(100_000).SerializeToString()
    assert made_bytes(typed) == len(typed)


def a_front(lane: ThreadLane) -> Front:
    engine = cast(Any, Unserved())
    bounds = Bounds(timeout_s=5, max_rows=MOST, max_concurrent=1)
    return Front(engine, cast(Any, None), ServedModels(), SystemClock(), bounds, CountingObserver(), lane)


def test_long_bodies_are_read_in_another_thread_and_their_time_is_taken_off() -> None:
    lane, labels = ThreadLane("bodies", threads=1), Labels()

    def decode() -> int:
        time.sleep(0.2)
        return threading.get_ident()

    front = a_front(lane)
    short = asyncio.run(front.read(threading.get_ident, LARGE_BYTES, labels))
    assert (short, labels.says_nothing) == (threading.get_ident(), True)
    assert asyncio.run(front.read(decode, LARGE_BYTES + 1, labels)) != threading.get_ident()
    lane.close()

    assert front.timeout_s(labels, None) <= 4.8
    assert front.timeout_s(labels, 1_000_000) <= 0.8


def test_a_body_that_is_not_read_in_time_is_late_and_no_other_is_read_beside_it() -> None:
    lane, front_of_it = ThreadLane("bodies", threads=1, most_lost=0), threading.Event()
    began: list[str] = []

    def slow() -> None:
        began.append("slow")
        front_of_it.wait(10)

    async def play() -> None:
        front = a_front(lane)
        for decode in (slow, lambda: began.append("next")):
            with pytest.raises(Late, match="the body was not read within the deadline"):
                await front.read(decode, LARGE_BYTES + 1, Labels(timeout_ms="50"))

    asyncio.run(play())
    assert (began, lane.lost) == (["slow"], 0)
    front_of_it.set()
    lane.close()


def test_what_was_made_of_a_refused_body_is_let_go_before_anybody_tells_so() -> None:
    lane, kept = ThreadLane("bodies", threads=1), []

    class Made:
        pass

    def refuse() -> None:
        made = Made()
        kept.append(weakref.ref(made))
        try:
            raise ValueError("too long")
        except ValueError as exc:
            raise TooLarge("there are too many") from exc

    async def play() -> None:
        for _ in range(2):
            with pytest.raises(TooLarge) as refused:
                await a_front(lane).read(refuse, LARGE_BYTES + 1, Labels())
            assert kept[-1]() is None, "although the error is here"
            assert isinstance(refused.value.__cause__, ValueError)

    asyncio.run(play())
    lane.close()
    assert len(kept) == 2


class NotedLane:
    """Does what it is given at once, and counts it."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Return what work returns."""
        self.runs += 1
        return work()


@pytest.mark.parametrize(("blocks", "runs"), [(10_000, 0), (20_000, 1)])
def test_a_long_packed_body_is_unpacked_apart_although_it_holds_nothing(blocks: int, runs: int) -> None:
    block = b"\x00\x00\xff\xff"
    packed = b"\x78\x01" + (b"\x00" + block) * blocks + b"\x01" + block + b"\x00\x00\x00\x01"
    lane = NotedLane()

    async def play() -> bytes:
        async with opened(packed, "deflate", a_front(cast(Any, lane)), Labels()) as content:
            return content

    assert (asyncio.run(play()), lane.runs) == (b"", runs)


def binary(tensors: list[dict[str, Any]], size: int, **more: Any) -> tuple[bytes, int]:
    """Return a body of as many bytes for each tensor, and how long its JSON is."""
    inputs = [tensor if "data" in tensor else tensor | {"parameters": {"binary_data_size": size}} for tensor in tensors]
    head = json.dumps({"inputs": inputs} | more).encode()
    return head + b"\0" * (size * sum("data" not in tensor for tensor in tensors)), len(head)


MATRIX: dict[str, Any] = {"name": "x", "shape": [64, 512], "datatype": "FP32"}
ARRAYS: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "a matrix": ([MATRIX], {}),
    "a matrix with an id": ([MATRIX], {"id": "mine"}),
    "a matrix and a column in JSON": ([MATRIX, a_tensor(64)], {}),
}
LISTS: dict[str, list[dict[str, Any]]] = {
    "a column": [{"name": "x", "shape": [2**15, 1], "datatype": "FP32"}],
    "a matrix and a column": [MATRIX, {"name": "y", "shape": [2**15], "datatype": "INT32"}],
    "truths": [{"name": "x", "shape": [2**10, 2**7], "datatype": "BOOL"}],
    "texts": [{"name": "x", "shape": [2**10, 2**5], "datatype": "BYTES"}],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_bytes_that_stay_an_array_are_no_reason_to_read_a_body_apart(kind: str) -> None:
    tensors, more = ARRAYS[kind]
    body, json_length = binary(tensors, 64 * 512 * 4, **more)

    assert v2.listed_bytes(body, json_length) == json_length
    assert v2.decode(body, json_length, MOST).rows.count == 64


@pytest.mark.parametrize("kind", LISTS)
def test_bytes_that_become_lists_are_counted(kind: str) -> None:
    body, json_length = binary(LISTS[kind], 2**17)

    assert v2.listed_bytes(body, json_length) == len(body)


@pytest.mark.parametrize("json_length", [0, LARGE_BYTES + 1, 10**9])
def test_a_body_of_long_json_or_of_none_is_counted_whole(json_length: int) -> None:
    assert v2.listed_bytes(b"[" * 100_000, json_length) == 100_000


@pytest.mark.parametrize(
    ("tensor", "runs", "status"), [(MATRIX, 0, 404), ({"name": "x", "shape": [2**15], "datatype": "FP32"}, 1, 413)]
)
def test_a_large_matrix_of_bytes_does_not_queue_behind_bodies_that_are_read(
    tensor: dict[str, Any], runs: int, status: int
) -> None:
    body, json_length = binary([tensor], 2**17)
    lane = NotedLane()
    path = HotPath(a_front(cast(Any, lane)), cast(Any, None))
    headers = {b"inference-header-content-length": b"%d" % json_length}

    answer = asyncio.run(path.infer(RawRequest("/v2/models/power/infer", ANONYMOUS, headers, body)))

    assert answer is not None
    assert (answer.status, lane.runs) == (status, runs)


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_caller_who_hangs_up_leaves_the_queue_of_bodies(is_packed: bool) -> None:
    lane, begun, front_of_it = ThreadLane("bodies", threads=1, most_lost=0), threading.Event(), threading.Event()
    body = json.dumps({"inputs": [], "x": LONG}).encode()
    heads = {b"content-encoding": b"gzip"} if is_packed else {}
    body = gzip.compress(body) if is_packed else body

    async def play() -> tuple[RawAnswer | None, float]:
        front, hung_up = a_front(lane), asyncio.Event()
        front.may_wait = lambda model: False  # type: ignore[method-assign]  # its model is quick

        async def receive() -> dict[str, Any]:
            await hung_up.wait()
            return {"type": "http.disconnect"}

        def slow() -> None:
            begun.set()
            front_of_it.wait(10)

        before = asyncio.create_task(front.read(slow, LARGE_BYTES + 1, Labels()))
        await asyncio.to_thread(begun.wait, 10)
        request = RawRequest("/v2/models/power/infer", ANONYMOUS, heads, body, receive)
        asked = asyncio.create_task(HotPath(front, cast(Any, None)).infer(request))
        await asyncio.to_thread(eventually, lambda: lane.waiting)
        began = time.monotonic()
        hung_up.set()
        answer = await asked
        took_s = time.monotonic() - began
        with front.places:  # its place is free again
            front_of_it.set()
        await before
        return answer, took_s

    answer, took_s = asyncio.run(play())
    lane.close()

    assert answer is None
    assert took_s < 2


async def silent() -> dict[str, Any]:
    """Hear nothing of a caller, who stays."""
    await asyncio.Event().wait()
    raise AssertionError


class BusyLane(NotedLane):
    """Has others first."""

    async def run(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Return what work returns, later."""
        await asyncio.sleep(0.5)
        return await super().run(work, timeout_s)


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "infer": ("/v2/models/power/infer", {"inputs": [a_tensor(1)], "x": LONG}),
    "invocations": ("/models/power/invocations", {"instances": [1], "x": LONG}),
    "predict": ("/v1/models/power:predict", {"instances": [LONG]}),
}


@pytest.mark.parametrize("name", ASKED)
def test_how_long_a_body_took_to_read_is_told_without_its_wait_for_others(name: str) -> None:
    lane, told = BusyLane(), []
    front: Any = a_front(cast(Any, lane))

    async def ask(*asked: Any) -> Answer:
        signature = Signature(task="regression", features=(), target="y")
        return Answer("id", "power", 1, "sha256:x", "champion", signature, Answers([1.5]))

    front.ask, front.took = ask, lambda model, parse_s, encode_s: told.append(parse_s)
    path, document = ASKED[name]
    request = RawRequest(path, ANONYMOUS, {}, json.dumps(document).encode(), silent)
    answer = asyncio.run(getattr(HotPath(front, cast(Any, None)), name)(request))

    assert (answer.status, lane.runs) == (200, 1)
    assert 0 < told[0] < 0.4


class Decoded:
    """What a body became."""


def test_what_a_refused_body_became_is_gone_with_its_answer() -> None:
    lane, decoded = ThreadLane("bodies", threads=1), []

    def refuse() -> None:
        rows = Decoded()
        decoded.append(weakref.ref(rows))
        raise TooLarge("there are too many rows")

    async def play() -> None:
        with contextlib.suppress(TooLarge):
            await a_front(lane).read(refuse, LARGE_BYTES + 1, Labels())

    gc.disable()
    try:
        asyncio.run(play())
        lane.close()
        eventually(lambda: decoded[0]() is None)
    finally:
        gc.enable()


def test_long_requests_are_answered_as_short_ones_are(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    tensors = [
        {"name": name, "shape": [1], "datatype": "BYTES" if name == "day" else "FP64", "data": [GOOD_ROW[name]]}
        for name in NAMES
    ]
    asked: dict[str, dict[str, Any]] = {
        "/v2/models/power/infer": {"inputs": tensors},
        "/v1/models/power:predict": {"instances": [GOOD_ROW]},
        "/invocations": {"dataframe_records": [GOOD_ROW]},
        "/v1/models/power:explain": {"instances": [GOOD_ROW]},
    }
    with a_server(platform, bundles) as http:
        for path, document in asked.items():
            content = json.dumps(document)
            short, long = http.post(path, content=content), http.post(path, content=content + LONG)
            assert (short.status_code, long.status_code) == (200, 200), long.text
            assert _said(short) == _said(long)


def _said(response: httpx.Response) -> Any:
    return {name: value for name, value in response.json().items() if name != "id"}
