"""The Open Inference Protocol V2 over REST: the shapes, and the datatypes' names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelyard_contracts.base import View, Wire

__all__ = [
    "IndexEntry",
    "InferRequest",
    "InferResponse",
    "MetadataTensor",
    "ModelMetadata",
    "RequestTensor",
    "ServerMetadata",
    "Tensor",
]

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]


class RequestTensor(Wire):
    """An input: one column of n rows, shape [n] or [n, 1]; or all numeric features at once, shape [n, features]."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    parameters: dict[str, Any] | None = None
    data: list[Any]


class InferRequest(Wire):
    """``POST /v2/models/{m}[/versions/{v}]/infer``."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    """``event_time`` (RFC 3339), ``routing_key``."""
    inputs: tuple[RequestTensor, ...] = Field(min_length=1)
    outputs: tuple[dict[str, Any], ...] | None = None


class Tensor(View):
    """An output."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    parameters: dict[str, Any] | None = None
    data: list[Any]


class InferResponse(View):
    """The answer: outputs ``predict`` and, for a classifier, ``predict_proba``."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any] | None = None
    outputs: tuple[Tensor, ...]


class MetadataTensor(View):
    """An input or output in a model's metadata."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class ModelMetadata(View):
    """``GET /v2/models/{m}``."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str
    inputs: tuple[MetadataTensor, ...] = ()
    outputs: tuple[MetadataTensor, ...] = ()


class IndexEntry(View):
    """One version in ``POST /v2/repository/index``; a model that has none yet is there without a version."""

    name: str
    version: str
    state: str
    reason: str = ""


class ServerMetadata(View):
    """``GET /v2``."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()
