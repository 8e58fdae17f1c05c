"""The Open Inference Protocol V2 over gRPC: messages as rows, answers as messages.

Values come typed or raw, never both; they go out raw to those who send raw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.open_inference import Datatype

from modelyard_inference.api.codecs.bounds import ANY_ROWS, check_rows
from modelyard_inference.api.codecs.raw import pack, unpack_numbers
from modelyard_inference.api.codecs.tensors import (
    INTEGER_BITS,
    Output,
    Tensor,
    Wanted,
    as_said,
    check_values,
    chosen,
    outputs_of,
    rows_of,
    size_of,
)
from modelyard_inference.api.codecs.v2 import V2Call, parameters_of, wanted_of
from modelyard_inference.api.grpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from modelyard_inference.domain.requests import Answer

__all__ = ["PREDICTION_ID", "VERSION", "decode", "encode", "plain"]

PREDICTION_ID, VERSION = "modelyard-prediction-id", "modelyard-version"
"""What HTTP says in headers stands in the answer's parameters too: a stream has no headers of its own for each."""

_FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
} | {name: "uint_contents" if name[0] == "U" else "int_contents" for name, bits in INTEGER_BITS.items() if bits < 64}


def decode(request: ModelInferRequest, most_rows: int = ANY_ROWS) -> V2Call:
    """Return what a request asks. Raise Invalid, naming the field and never a value, or TooLarge."""
    given = request.parameters
    parameters = parameters_of(plain(given))[0] if given else {}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Invalid.at("raw_input_contents", f"has {len(raw)} tensors for {len(request.inputs)} inputs")
    tensors = []
    for position, tensor in enumerate(request.inputs):
        path = f"inputs[{position}]"
        datatype = tensor.datatype
        size = size_of(datatype, tensor.shape, path)
        shape = tuple(tensor.shape)
        if size > most_rows:
            check_rows(shape[0], most_rows)
        values: list[Any] | npt.NDArray[Any]
        if raw:
            # MLServer's client sends an empty one.
            if tensor.HasField("contents") and tensor.contents.ListFields():
                raise Invalid.at(f"{path}.contents", "and raw_input_contents are given; send one of them")
            values = unpack_numbers(datatype, size, raw[position], f"raw_input_contents[{position}]")
        else:
            values = _typed(datatype, size, tensor.contents, path)
            check_values(datatype, size, values, f"{path}.contents")
        if tensor.parameters:
            values = as_said(datatype, values, plain(tensor.parameters), path)
        tensors.append(Tensor(tensor.name, datatype, shape, values))
    return V2Call(rows_of(tensors), request.id or None, parameters, _wanted(request), bool(raw))


def encode(answer: Answer, call: V2Call) -> bytes:
    """Return the response, written. Raise Invalid when an output is asked for that there is not."""
    outputs = outputs_of(answer)
    if call.wanted:
        outputs = chosen(outputs, call.wanted)
    own_id = call.id or answer.prediction_id
    if not call.binary:
        response = _response(answer.model, answer.number, answer.digest, outputs)
        response.id = own_id
        response.parameters[PREDICTION_ID].string_param = answer.prediction_id
        for written, output in zip(response.outputs, outputs, strict=True):
            _fill(written.contents, output)
        return response.SerializeToString()
    # A message is the fields that are written one after another, so that those which are always the same are kept.
    parts = [
        _written(answer.model, answer.number, answer.digest, tuple(map(_kind, outputs))),
        _field(_ID, own_id.encode()),
        _field(_PARAMETERS, _PREDICTION_ID_NAME + _field(_VALUE, _field(_TEXT, answer.prediction_id.encode()))),
    ]
    parts += [_field(_RAW, pack(output.datatype, output.values)) for output in outputs]
    return b"".join(parts)


def _response(model: str, number: int, digest: str, outputs: Sequence[Output]) -> ModelInferResponse:
    """Return what does not differ from answer to answer."""
    response = ModelInferResponse(model_name=model, model_version=str(number))
    response.parameters[VERSION].string_param = digest
    for output in outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    return response


@lru_cache(maxsize=512)
def _written(model: str, number: int, digest: str, kinds: tuple[tuple[str, Datatype, tuple[int, ...]], ...]) -> bytes:
    outputs = [Output(name, datatype, list(shape), []) for name, datatype, shape in kinds]
    return _response(model, number, digest, outputs).SerializeToString()


def _kind(output: Output) -> tuple[str, Datatype, tuple[int, ...]]:
    return output.name, output.datatype, tuple(output.shape)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes as protobuf writes it: its number and kind, its length, itself."""
    size = len(content)
    head = bytearray((number << 3 | 2,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content


_ID = ModelInferResponse.ID_FIELD_NUMBER
_PARAMETERS = ModelInferResponse.PARAMETERS_FIELD_NUMBER
_RAW = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_NAME, _VALUE = 1, 2
"""Of the entries of a map."""
_TEXT = InferParameter.STRING_PARAM_FIELD_NUMBER
_PREDICTION_ID_NAME = _field(_NAME, PREDICTION_ID.encode())


def plain(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    """Return parameters as Python's own values; what holds none is left out."""
    chosen_fields = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen_fields.items() if field is not None}


def _typed(datatype: str, size: int, contents: InferTensorContents, path: str) -> list[Any]:
    field = _FIELDS.get(datatype)
    if field is None:
        raise Invalid.at(path, f"{datatype} travels in raw_input_contents only")
    if others := [found.name for found, _ in contents.ListFields() if found.name != field]:
        raise Invalid.at(f"{path}.contents", f"{datatype} belongs in {field}, not in {others[0]}")
    given = getattr(contents, field)
    if len(given) != size:  # before objects are made of them
        raise Invalid.at(f"{path}.contents", f"has {len(given)} values for a shape of {size}")
    if datatype == "BYTES":
        try:
            return [text.decode() for text in given]
        except UnicodeDecodeError as exc:
            raise Invalid.at(f"{path}.contents", "holds a text that is not UTF-8") from exc
    values = list(given)
    if datatype in ("FP32", "FP64"):
        return [None if math.isnan(value) else value for value in values]
    return values


def _fill(contents: InferTensorContents, output: Output) -> None:
    values = output.values if isinstance(output.values, list) else output.values.tolist()
    if output.datatype == "BYTES":
        values = [str(value).encode() for value in values]
    getattr(contents, _FIELDS[output.datatype]).extend(values)


def _wanted(request: ModelInferRequest) -> Sequence[Wanted]:
    # Whether they go out raw is left to how the inputs came.
    return [
        wanted_of(place, output.name, plain(output.parameters) if output.parameters else None)
        for place, output in enumerate(request.outputs)
    ]
