"""Answers over gRPC: what is written field by field is the message that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_inference.api.codecs import v2_grpc
from modelyard_inference.api.codecs.v2 import V2Call
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.domain.answers import Answers
from modelyard_inference.domain.requests import Answer, Rows

SIGNATURE = Signature(
    task="classification", target="y", features=(Column(name="a", type="number"),), classes=("no", "yes")
)


def an_answer(labels: list[Any], chances: list[float] | None, prediction_id: str = "p") -> Answer:
    told = None if chances is None else np.array(chances, np.float32)
    answers = Answers(labels, told, 2 if chances else 0, None)
    return Answer(prediction_id, "power", 3, "sha256:" + "a" * 64, "champion", SIGNATURE, answers)


def read(answer: Answer, *, binary: bool, own_id: str | None = None) -> pb.ModelInferResponse:
    call = V2Call(Rows(count=len(answer.answers.labels), named={}), own_id, {}, (), binary)
    return pb.ModelInferResponse.FromString(v2_grpc.encode(answer, call))


@given(
    chances=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=90),
    own_id=st.none() | st.text(min_size=1, max_size=400),
    prediction_id=st.text("0123456789abcdef-", min_size=1, max_size=300),
)
def test_raw_answers_say_what_typed_ones_do(chances: list[float], own_id: str | None, prediction_id: str) -> None:
    pairs = [value for chance in chances for value in (1 - chance, chance)]
    answer = an_answer([int(chance > 0.5) for chance in chances], pairs, prediction_id)

    raw, typed = read(answer, binary=True, own_id=own_id), read(answer, binary=False, own_id=own_id)

    labels, probabilities = raw.raw_output_contents
    assert np.frombuffer(labels, "<i8").tolist() == list(typed.outputs[0].contents.int64_contents)
    assert np.frombuffer(probabilities, "<f4").tolist() == list(typed.outputs[1].contents.fp32_contents)
    assert {name: value.string_param for name, value in raw.parameters.items()} == {
        "modelyard-prediction-id": prediction_id,
        "modelyard-version": answer.digest,
    }
    raw.ClearField("raw_output_contents")
    for output in typed.outputs:
        output.ClearField("contents")
    assert raw == typed
    assert (raw.id, raw.model_name, raw.model_version) == (own_id or prediction_id, "power", "3")


@pytest.mark.parametrize(
    ("labels", "datatype", "raw"),
    [(["yes"], "BYTES", b"\x03\0\0\0yes"), ([True], "BOOL", b"\x01"), ([0.5], "FP64", np.float64(0.5).tobytes())],
)
def test_labels_of_each_kind_are_written(labels: list[Any], datatype: str, raw: bytes) -> None:
    response = read(an_answer(labels, None), binary=True)

    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (datatype, [1])
    assert list(response.raw_output_contents) == [raw]
