"""What is said before binary tensors is remembered: it means the same as when it is read again, and holds no values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelyard_common.errors import Invalid
from modelyard_inference.api.codecs import v2
from modelyard_inference.api.codecs.raw import width_of
from modelyard_inference.api.codecs.tensors import DATATYPES

NEVER, OFTEN = -1, 10**6


def request(head: dict[str, Any], tail: bytes) -> tuple[bytes, int]:
    """Return a body, and how much of it is JSON."""
    written = json.dumps(head).encode()
    return written + tail, len(written)


def of_floats(*numbers: float, rows: int = 2, **more: Any) -> tuple[bytes, int]:
    tail = np.array(numbers, "<f4").tobytes()
    tensor = {"name": "x", "shape": [rows, len(numbers) // rows], "datatype": "FP32"}
    return request({"inputs": [tensor | {"parameters": {"binary_data_size": len(tail)}}]} | more, tail)


def read(body: bytes, length: int) -> Any:
    """Return what a request means, or why it is refused."""
    try:
        call = v2.decode(body, length)
    except Invalid as exc:
        return exc.message, exc.errors
    rows, matrix = call.rows, call.rows.matrix
    return (
        (call.id, dict(call.parameters), list(call.wanted), call.binary),
        (rows.count, rows.source, {name: str(values) for name, values in rows.named.items()}),
        None if matrix is None else (matrix.width, str(list(matrix.values))),
    )


SIZES = st.sampled_from([None, True, -1, 2**40, "4", 1.5])


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, int]:
    """Draw a request, of which about every second has nothing wrong with it."""

    def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> Any:
        return draw(bad if draw(st.integers(0, 19)) == 19 else good)

    rows, tail, inputs = mostly(st.integers(1, 3), st.just(0)), b"", []
    for number in range(mostly(st.integers(1, 3), st.just(0))):
        datatype = mostly(st.sampled_from(("FP32", "FP64", "INT64", *DATATYPES)), st.just("STRING"))
        usual = st.sampled_from([[rows], [rows, 1]] if number else [[rows], [rows, 1], [rows, 2]])
        shape = mostly(usual, st.sampled_from([[rows, 0], [rows, 1, 1], [], [rows, 2], [rows + 1]]))
        name = mostly(st.just(f"x{number}"), st.just("x0"))
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        inputs.append(tensor)
        if mostly(st.just(False), st.just(True)):
            tensor["data"] = draw(st.lists(st.integers(0, 1), max_size=6))
            continue
        count = int(np.prod(shape))
        piece = b"\1\0\0\0a" * count
        if (width := width_of(datatype) if datatype in DATATYPES else 1) is not None:
            piece = mostly(st.just(bytes(count * width)), st.binary(min_size=count * width, max_size=count * width))
        said = mostly(st.just(len(piece)), SIZES)
        tensor["parameters"] = {} if said is None else {"binary_data_size": said}
        tail += piece
    head: dict[str, Any] = {"inputs": inputs}
    if draw(st.integers(0, 3)) == 3:
        head["id"] = mostly(st.sampled_from(["", "7"]), st.just(7))
    if draw(st.integers(0, 2)):
        head["parameters"] = {"binary_data_output": mostly(st.booleans(), st.just(1))}
        head["parameters"] |= mostly(
            st.sampled_from([{}, {"timeout": 5}, {"routing_key": "k"}, {"else": 1}]), st.just({"timout": 1})
        )
    if draw(st.booleans()):
        wrong = st.sampled_from([{"binary_data": 1}, {"else": 1}])
        parameters = mostly(st.sampled_from([{}, {"binary_data": True}]), wrong)
        head["outputs"] = [{"name": "predict", "parameters": parameters}]
    return request(head, tail + mostly(st.just(b""), st.just(b"\0")))


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests())
def test_a_remembered_request_means_what_it_meant(monkeypatch: pytest.MonkeyPatch, body: tuple[bytes, int]) -> None:
    monkeypatch.setattr(v2, "_KEPT_BYTES", NEVER)
    anew = read(*body)
    monkeypatch.setattr(v2, "_KEPT_BYTES", OFTEN)

    assert [read(*body), read(*body)] == [anew, anew]


def test_only_what_is_said_is_remembered_and_not_the_numbers() -> None:
    v2._layout.cache_clear()

    answers = [read(*of_floats(*numbers)) for numbers in ((1.0, 2.0), (3.0, float("nan")), (5.0, 6.0))]

    assert [matrix for _, _, matrix in answers] == [None] * 3  # one number a row is a column
    assert [rows[2]["x"] for _, rows, _ in answers] == ["[1.0, 2.0]", "[3.0, None]", "[5.0, 6.0]"]
    assert (v2._layout.cache_info().misses, v2._layout.cache_info().hits) == (1, 2)


def test_requests_with_something_of_their_own_get_it_back_and_it_is_not_remembered() -> None:
    v2._layout.cache_clear()

    answers = [
        read(*of_floats(1.0, 2.0, 3.0, 4.0, id=str(number), parameters={"routing_key": f"k{number}"}))
        for number in range(20)
    ]

    assert [asked[:2] for asked, _, _ in answers] == [
        (str(number), {"routing_key": f"k{number}"}) for number in range(20)
    ]
    assert v2._layout.cache_info().currsize == 0


def test_not_more_than_some_are_remembered() -> None:
    for rows in range(1, 400):
        read(*of_floats(*[1.0] * rows, rows=rows))

    assert v2._layout.cache_info().currsize == v2._layout.cache_info().maxsize == 256


def test_what_is_long_or_wrong_or_has_values_in_it_is_not_remembered() -> None:
    v2._layout.cache_clear()

    read(*of_floats(1.0, 2.0, id="i" * 4096))
    read(*of_floats(1.0, 2.0, parameters={"timout": 1}))
    read(*request({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}, b""))

    assert v2._layout.cache_info().currsize == 0


def test_parameters_of_one_request_are_not_those_of_the_next() -> None:
    first, second = (
        v2.decode(*of_floats(1.0, 2.0, parameters={"timeout": 5, "binary_data_output": True})) for _ in range(2)
    )

    assert first.parameters == second.parameters == {"timeout": 5}
    assert first.binary
    with pytest.raises(TypeError):
        first.parameters["timeout"] = 7  # type: ignore[index]
