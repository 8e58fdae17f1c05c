"""The Open Inference Protocol V2 over gRPC: messages as rows, answers as messages.

Values come typed or raw, never both; they go out raw to those who send raw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from modelyard_inference.api.codecs.raw import pack, unpack_numbers
from modelyard_inference.api.codecs.tensors import (
    INTEGER_BITS,
    Output,
    Tensor,
    Wanted,
    check_values,
    chosen,
    outputs_of,
    rows_of,
    short,
    size_of,
)
from modelyard_inference.api.codecs.v2 import V2Call, known_parameters
from modelyard_inference.api.grpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from modelyard_inference.domain.requests import Answer, invalid

__all__ = ["ANSWER_PARAMETERS", "decode", "encode", "plain"]

ANSWER_PARAMETERS = ("modelyard-prediction-id", "modelyard-version")
"""What HTTP says in headers stands in the answer's parameters too: a stream has no headers of its own for each."""

_FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
} | {name: "uint_contents" if name[0] == "U" else "int_contents" for name, bits in INTEGER_BITS.items() if bits < 64}


def decode(request: ModelInferRequest) -> V2Call:
    """Return what a request asks. Raise Invalid, naming the field and never a value."""
    given = request.parameters
    parameters = known_parameters(plain(given)) if given else {}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid("raw_input_contents", f"has {len(raw)} tensors for {len(request.inputs)} inputs")
    tensors = []
    for position, tensor in enumerate(request.inputs):
        path = f"inputs[{position}]"
        datatype, shape = tensor.datatype, tuple(tensor.shape)
        size = size_of(datatype, shape, path)
        values: list[Any] | npt.NDArray[Any]
        if raw:
            # MLServer's client sends an empty one.
            if tensor.HasField("contents") and tensor.contents.ListFields():
                raise invalid(f"{path}.contents", "and raw_input_contents are given; send one of them")
            values = unpack_numbers(datatype, size, raw[position], f"raw_input_contents[{position}]")
        else:
            values = _typed(datatype, tensor.contents, path)
            check_values(datatype, size, values, f"{path}.contents")
        tensors.append(Tensor(tensor.name, datatype, shape, values))
    return V2Call(rows_of(tensors), request.id or None, parameters, _wanted(request), bool(raw))


def encode(answer: Answer, call: V2Call) -> ModelInferResponse:
    """Return the response. Raise Invalid when an output is asked for that there is not."""
    outputs = outputs_of(answer)
    if call.wanted:
        outputs = chosen(outputs, call.wanted)
    response = ModelInferResponse(
        model_name=answer.model, model_version=str(answer.number), id=call.id or answer.prediction_id
    )
    for name, value in zip(ANSWER_PARAMETERS, (answer.prediction_id, answer.digest), strict=True):
        response.parameters[name].string_param = value
    for output in outputs:
        contents = None if call.binary else _contents(output)
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape, contents=contents)
        if call.binary:
            response.raw_output_contents.append(pack(output.datatype, output.values))
    return response


def plain(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    """Return parameters as Python's own values; what holds none is left out."""
    chosen_fields = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen_fields.items() if field is not None}


def _typed(datatype: str, contents: InferTensorContents, path: str) -> list[Any]:
    field = _FIELDS.get(datatype)
    if field is None:
        raise invalid(path, f"{datatype} travels in raw_input_contents only")
    if others := [found.name for found, _ in contents.ListFields() if found.name != field]:
        raise invalid(f"{path}.contents", f"{datatype} belongs in {field}, not in {others[0]}")
    if datatype == "BYTES":
        try:
            return [text.decode() for text in contents.bytes_contents]
        except UnicodeDecodeError as exc:
            raise invalid(f"{path}.contents", "holds a text that is not UTF-8") from exc
    values = list(getattr(contents, field))
    if datatype in ("FP32", "FP64"):
        return [None if math.isnan(value) else value for value in values]
    return values


def _contents(output: Output) -> InferTensorContents:
    values = [str(value).encode() for value in output.values] if output.datatype == "BYTES" else output.values
    contents = InferTensorContents()
    getattr(contents, _FIELDS[output.datatype]).extend(values)
    return contents


def _wanted(request: ModelInferRequest) -> Sequence[Wanted]:
    wanted = []
    for place, output in enumerate(request.outputs):
        if output.parameters:
            raise invalid(f"outputs[{place}].parameters", f"{short(min(output.parameters))} is not known")
        wanted.append(Wanted(output.name))
    return wanted
