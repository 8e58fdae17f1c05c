"""Floats read into an array: the numbers that the other way reads, and everything else is left to that way."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.errors import Invalid, TooLarge
from modelyard_inference.api.codecs import floats, v2
from modelyard_inference.api.codecs.bounds import ANY_ROWS
from modelyard_inference.api.codecs.floats import one_tensor_of
from numpy.typing import NDArray

NUMBERS = st.lists(
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=40
)
ROWS, WIDTH = 16, 30
LONG = [round(0.1 * place, 3) for place in range(ROWS * WIDTH)]


def body(**changes: Any) -> bytes:
    """Return a request that is long enough to be read this way, with something else in its tensor."""
    tensor = {"name": "rows", "shape": [ROWS, WIDTH], "datatype": "FP64", "data": LONG} | changes
    return json.dumps({"inputs": [tensor]}).encode()


def floats_of(text: bytes) -> NDArray[np.float64] | None:
    """Return what a request's only input has as values, if they are read as floats."""
    found = one_tensor_of(b'{"inputs": [{"shape": [1], "data": %b}]}' % text, ANY_ROWS)
    return None if found is None else found.values


def either_way(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is read into an array where that is done, and what is read as objects: a call, or an error."""
    found: list[Any] = []
    for many in (1, 10**9):
        monkeypatch.setattr(v2, "_MANY_BYTES", many)
        try:
            call = v2.decode(content)
        except Invalid as exc:
            found.append((exc.message, exc.errors))
        else:
            matrix = call.rows.matrix
            values = None if matrix is None else list(matrix.values)
            named = {name: list(column) for name, column in call.rows.named.items()}
            found.append((call.id, call.parameters, call.wanted, call.binary, call.rows.count, named, values))
    return found


@given(NUMBERS)
def test_numbers_are_rounded_as_python_rounds_them(numbers: list[float]) -> None:
    found = floats_of(json.dumps(numbers).encode())

    assert found is not None
    assert found.tobytes() == np.array([float(number) for number in numbers]).tobytes()


@given(st.lists(st.text("0123456789.eE+-", min_size=1, max_size=12), min_size=1, max_size=5))
def test_what_is_no_number_for_python_is_none_here(texts: list[str]) -> None:
    text = f"[{','.join(texts)}]"
    found = floats_of(text.encode())

    if found is not None:
        assert found.tolist() == [float(number) for number in json.loads(text)]


@pytest.mark.parametrize(
    "text",
    [
        b"[1, null]",
        b"[true]",
        b'["1"]',
        b"[[1, 2]]",
        b"[{}]",
        b"[NaN]",
        b"[1e999]",
        b"[18446744073709551616]",
        b"[-9223372036854775809]",
        b"[1,]",
        b"[01]",
        b"[1",
        b"{}",
        b"3",
        b"null",
        b"",
        b"\xff",
    ],
)
def test_anything_else_is_left_to_who_tells_what_is_wrong(text: bytes) -> None:
    assert floats_of(text) is None
    assert floats_of(b"[1.5]") == np.array([1.5])  # and the parser is free again


def test_of_many_names_only_the_known_ones_are_looked_up() -> None:
    """To look one up takes as long as there are names before it."""
    more = json.dumps({f"more-{place}": place for place in range(60_000)}).encode()[1:-1]

    found = one_tensor_of(body()[:-3] + b", " + more + b"}], " + more + b"}", ANY_ROWS)

    assert found is not None
    assert (found.envelope, found.tensor.keys()) == ({}, {"name", "shape", "datatype"})


def test_who_says_that_there_are_too_many_rows_is_refused_before_the_values_are_looked_at() -> None:
    with pytest.raises(TooLarge, match=f"there are {ROWS} rows; at most {ROWS - 1} are taken"):
        one_tensor_of(body(data=["no number"]), ROWS - 1)

    assert one_tensor_of(body(), ROWS) is not None
    assert one_tensor_of(body(shape=[]), ROWS - 1) is not None, "what is wrong is told by who reads it whole"


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        numbers = np.random.default_rng(seed).normal(size=2000)
        text = json.dumps(numbers.tolist()).encode()
        for _ in range(50):
            if (found := floats_of(text)) is None or found.tolist() != numbers.tolist():
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_python_without_the_library_reads_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floats, "Parser", None)
    monkeypatch.setattr(floats, "_LOCAL", floats._Local())

    assert floats_of(b"[1.5]") is None
    assert v2.decode(body()).rows.matrix is not None


def test_a_long_document_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    shipped = floats.Parser

    def counted() -> Any:
        made.append(1)
        return shipped()

    floats_of(b"[]")  # this thread has its own by now
    monkeypatch.setattr(floats, "Parser", counted)
    short, long = b"[1.5]", b"[" + b"1.5," * 100_000 + b"1.5]"

    assert [len(found) for text in (short, long, short) if (found := floats_of(text)) is not None] == [1, 100_001, 1]
    assert len(made) == 1


@pytest.mark.parametrize(
    "content",
    [
        body(),
        body(datatype="FP32", parameters={"a": 1}),
        body()[:-1] + b', "id": "a", "parameters": {"binary_data_output": true}, "outputs": [{"name": "predict"}]}',
        body()[:-1] + b', "more": {"a": 1}, "outputs": null}',
    ],
)
def test_a_long_matrix_is_read_into_an_array(content: bytes) -> None:
    matrix = v2.decode(content).rows.matrix

    assert matrix is not None
    assert isinstance(matrix.values, np.ndarray)
    assert matrix.values.tolist() == LONG


@pytest.mark.parametrize(
    "content",
    [
        body(),
        body(datatype="FP32"),
        body(datatype="INT64"),
        body(datatype="INT64", data=list(range(ROWS * WIDTH))),
        body(datatype="BYTES"),
        body(datatype="fp64"),
        body(data=[*LONG[1:], None]),
        body(data=[*LONG[1:], True]),
        body(data=[*LONG[1:], "1"]),
        body(data=[*LONG[1:], 10**40]),
        body(data=LONG[1:]),
        body(data=[LONG[place : place + WIDTH] for place in range(0, len(LONG), WIDTH)]),
        body(data=[LONG[: WIDTH + 1], LONG[WIDTH + 1 :]], shape=[ROWS, WIDTH]),
        body(data=None),
        body(data={}),
        body(shape=[ROWS * WIDTH]),
        body(shape=[ROWS * WIDTH, 1]),
        body(shape=[ROWS * WIDTH, 0]),
        body(shape=[0, WIDTH], data=[]),
        body(shape=[-ROWS, -WIDTH]),
        body(shape=[4, 4, WIDTH]),
        body(shape=[]),
        body(parameters={"binary_data_size": 8}),
        body()[:-1] + b', "id": "a", "parameters": {"binary_data_output": true}, "outputs": [{"name": "predict"}]}',
        body()[:-1] + b', "parameters": {"other": 1}}',
        body()[:-1] + b', "parameters": {"binary_data_output": 1}}',
        body()[:-1] + b', "outputs": null}',
        body(data=[*LONG[1:-1], [1.0, 2.0]])[:-1] + b', "outputs": null}',
        body(data=[LONG])[:-1] + b', "outputs": null}',
        body()[:-1] + b', "outputs": [{"name": 1, "name": "predict"}]}',
        body()[:-1] + b', "outputs": [{"name": "predict", "parameters": 3, "parameters": null}]}',
        body()[:-1] + b', "outputs": [{"name": "predict", "parameters": {"binary_data": true}}], "id": null}',
        body()[:-1] + b', "outputs": [1, null, "a"]}',
        body()[:-1] + b', "outputs": {}}',
        body()[:-1] + b', "outputs": []}',
        body()[:-1] + b', "more": [1, {}]}',
        body()[:-1] + b', "more": {"a": 1}}',
        body()[:-1] + b', "id": 1}',
        body()[:-1] + b', "id": "a", "id": "b"}',
        body()[:-1] + b', "parameters": {"log": true, "log": false}}',
        body()[:-1] + b', "inputs": []}',
        body()[:-2] + b', "name": "other"}]}',
        body()[:-2] + b', "data": []}]}',
        body(shape=[float(ROWS), WIDTH]),
        body(shape=[True, ROWS * WIDTH]),
        body(shape={"a": 1}),
        body(name=1),
        body(name="[", parameters={"a": "]"}),
        body(parameters={"a": [1]}),
        body(data=[*LONG[2:], [1.0], [2.0]]),
        body(data=[*LONG[2:], [], [1.0, 2.0]]),
        b"\xef\xbb\xbf" + body(),
        b" \n" + body(),
        body(name="\ud800"),
        body().replace(b"rows", b"\xff"),
        body().replace(b"0.1,", b"1e999,"),
        json.dumps([1.5] * 2000).encode(),
        json.dumps({"inputs": 1.5, "more": [1.5] * 2000}).encode(),
        json.dumps({"inputs": [LONG]}).encode(),
        body()[:-2] + b"," + body()[len(b'{"inputs": [') :],
        body()[:-1],
        body().replace(b"0.1,", b"0.1;"),
        body().replace(b"0.1,", b"NaN,"),
        body() + b"x",
    ],
)
def test_both_ways_understand_the_same(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    array, objects = either_way(content, monkeypatch)

    assert array == objects
