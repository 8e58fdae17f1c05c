"""What was answered as CloudEvents 1.0 under KServe's names, so that what reads KServe's payload log reads ours.

A request becomes two events of one id, its question and its answer, in the tensors of the Open Inference Protocol.
Binary mode: attributes are headers, percent-encoded as the HTTP binding asks for. Features that are redacted were never
written down, so that they are in neither.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import quote

import msgspec

__all__ = ["REQUEST", "RESPONSE", "CloudEvent", "Place", "Row", "events_of", "requests_in"]

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
_COMPONENT = "predictor"
_ENDPOINTS = {"champion": "default", "candidate": "canary", "shadow": "shadow"}
_KEPT = "".join(map(chr, range(0x21, 0x7F))).translate({ord(char): None for char in '"%'})
"""What an attribute's value may hold as it is; all else is percent-encoded."""
_encode = msgspec.json.Encoder().encode
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where events come from."""

    source: str
    namespace: str


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event, as it is posted."""

    headers: Mapping[str, str]
    body: bytes


def requests_in(payloads: Sequence[bytes]) -> Iterator[list[Row]]:
    """Yield the rows of each request: the records that follow each other under one id, by one version."""
    rows = map(msgspec.json.decode, payloads)
    for _, group in groupby(rows, key=lambda row: (row["id"].rpartition("/")[0], row["version"], row["role"])):
        yield list(group)


def events_of(rows: Sequence[Row], place: Place) -> tuple[CloudEvent, ...]:
    """Return the two events of a request; none of one that is not logged with its values, or that failed."""
    first = rows[0]
    if not first["sampled"] or first["error"] is not None:
        return ()
    id_ = first["id"].rpartition("/")[0]
    arrival = first["arrival"]
    question = {
        "id": id_,
        "inputs": [_tensor(name, [row["features"].get(name) for row in rows]) for name in first["features"]],
    }
    outputs = [_tensor("predict", [row["prediction"] for row in rows])]
    if any(row["score"] is not None for row in rows):
        outputs.append(_tensor("score", [row["score"] for row in rows]))
    answer = {"id": id_, "model_name": first["model"], "model_version": first["version"], "outputs": outputs}
    answered = datetime.fromisoformat(arrival) + timedelta(milliseconds=first["latency_ms"])
    return (
        CloudEvent(_headers(REQUEST, id_, arrival, first, place), _encode(question)),
        CloudEvent(_headers(RESPONSE, id_, answered.isoformat(), first, place), _encode(answer)),
    )


def _headers(kind: str, id_: str, time: str, row: Row, place: Place) -> dict[str, str]:
    queue_ms = row.get("queue_ms", 0.0)
    metadata = {
        "version": row["version"],
        "role": row["role"],
        "revision": row["revision"],
        "event_time": row["event_time"],
        "routing_key": row["routing_key"],
        "queue_ms": queue_ms,
        "predict_ms": round(row["latency_ms"] - queue_ms, 4),
    }
    attributes = {
        "specversion": "1.0",
        "id": id_,
        "type": kind,
        "source": place.source,
        "time": time,
        "inferenceservicename": row["model"],
        "namespace": place.namespace,
        "component": _COMPONENT,
        "endpoint": _ENDPOINTS[row["role"]],
        "metadata": _encode(metadata).decode(),
        "recordedtime": row["arrival"],
    }
    if traceparent := row.get("traceparent"):
        attributes["traceparent"] = traceparent
    headers = {f"ce-{name}": quote(text, safe=_KEPT) for name, text in attributes.items()}
    return headers | {"content-type": "application/json"}


def _tensor(name: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": _datatype(data), "data": data}


def _datatype(data: Sequence[Any]) -> str:
    kinds = {type(value) for value in data if value is not None}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"
