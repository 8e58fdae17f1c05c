"""What nobody should send, in every protocol, made by hypothesis. Texts in it are secret: none may come back."""

from __future__ import annotations

import json
import math

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from modelyard_inference.api.grpc import open_inference_pb2 as pb

SECRET = "very-secret-value"
DATATYPES = ["BOOL", "BYTES", "FP16", "FP32", "FP64", "BF16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "NONE", ""]
NAMES = st.sampled_from(["load", "price", "day", "x", ""])

secrets = st.text(max_size=3).map(lambda text: SECRET + text)
numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e39]),
)
values = st.one_of(st.none(), st.booleans(), numbers, secrets)
documents = st.recursive(
    values,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
parameters = st.one_of(
    st.none(),
    documents,
    st.dictionaries(st.sampled_from(["event_time", "routing_key", "timeout", "binary_data_output", "y"]), documents),
)
shapes = st.lists(st.one_of(st.integers(-1, 3), st.sampled_from([2**31, 2**62])), max_size=3)
tensors = st.fixed_dictionaries(
    {"name": NAMES, "datatype": st.sampled_from(DATATYPES), "shape": shapes},
    optional={
        "data": st.one_of(st.lists(values, max_size=4), st.lists(st.lists(values, max_size=3), max_size=3), documents),
        "parameters": st.one_of(parameters, st.fixed_dictionaries({"binary_data_size": documents})),
    },
)
v2_requests = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(tensors, max_size=4), documents)},
    optional={
        "id": documents,
        "parameters": parameters,
        "outputs": st.one_of(
            documents,
            st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["predict", "predict_proba", "z"])}, optional={"parameters": parameters}
                ),
                max_size=3,
            ),
        ),
    },
)
rows = st.dictionaries(NAMES, values, max_size=4)
scoring_requests = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "params", "parameters", "rows"]),
    st.one_of(
        documents,
        st.lists(rows, max_size=3),
        st.lists(st.lists(values, max_size=4), max_size=3),
        st.dictionaries(NAMES, st.lists(values, max_size=3), max_size=4),
        st.fixed_dictionaries({"columns": documents, "data": documents}),
        parameters,
    ),
    max_size=3,
)
bodies = st.one_of(
    st.binary(max_size=60),
    v2_requests.map(lambda document: json.dumps(document | {"z": math.nan}).encode()),
    scoring_requests.map(lambda document: json.dumps(document).replace("null", "NaN").encode()),
    st.one_of(v2_requests, scoring_requests, documents).map(lambda document: json.dumps(document).encode()),
)
usual = settings(max_examples=200)

grpc_parameters = st.dictionaries(
    st.sampled_from(["event_time", "routing_key", "timeout", "y"]),
    st.one_of(
        st.builds(pb.InferParameter),
        st.builds(pb.InferParameter, bool_param=st.booleans()),
        st.builds(pb.InferParameter, string_param=secrets),
        st.builds(pb.InferParameter, double_param=st.floats()),
        st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    ),
    max_size=2,
)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    fp64_contents=st.lists(st.floats(), max_size=2),
    bytes_contents=st.lists(st.one_of(st.binary(max_size=4), secrets.map(str.encode)), max_size=2),
)
grpc_requests = st.builds(
    pb.ModelInferRequest,
    id=st.text(max_size=3),
    parameters=grpc_parameters,
    inputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferInputTensor,
            name=NAMES,
            datatype=st.sampled_from(DATATYPES),
            shape=shapes,
            contents=st.one_of(st.none(), contents),
        ),
        max_size=3,
    ),
    outputs=st.lists(st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=NAMES), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=20), max_size=3),
)

PATHS = [
    "/v2/models/power/infer",
    "/v2/models/power/versions/1/infer",
    "/v2/repository/index",
    "/v2/repository/models/power/load",
    "/invocations",
    "/models/power/invocations",
    "/v1/models/power:predict",
]
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/json", "text/csv", "application/vnd.apache.parquet", "a/b", "", ";"]
        ),
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", ""]),
        "inference-header-content-length": st.sampled_from(["0", "1", "60", "-1", "x", "9" * 30]),
        "modelyard-timeout-ms": st.sampled_from(["1000", "0", "x", "9" * 30]),
        "modelyard-event-time": st.sampled_from(["2026-01-01T00:00:00Z", "1e400", SECRET, ","]),
        "modelyard-routing-key": st.sampled_from(["k", "", SECRET]),
        "accept": st.sampled_from(["*/*", "application/vnd.apache.arrow.stream"]),
    },
)
deep = st.sampled_from([b"[", b'{"inputs":', b'{"a":[']).map(lambda part: part * 200_000)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return what is left of a body when some of its bytes are others, and its end may be missing."""
    places = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)

    def damage(changes: list[tuple[int, int]], length: int) -> bytes:
        changed = bytearray(content)
        for place, value in changes:
            changed[place] = value
        return bytes(changed[:length])

    return st.builds(damage, places, st.one_of(st.just(len(content)), st.integers(0, len(content))))


def check_form(path: str, response: httpx.Response) -> None:
    """Assert that an error is written as the protocol of its path has it, and tells nothing that was sent."""
    assert response.status_code in (400, 404, 413, 415, 504), response.text
    assert "Traceback" not in response.text
    assert SECRET not in response.text
    if path.endswith("invocations"):
        if response.status_code == 415:
            assert response.headers["content-type"].startswith("text/plain")
        else:
            assert response.json().keys() == {"error_code", "message"}
    elif path.startswith("/v1/"):
        assert response.json().keys() == {"error"}
    else:
        assert isinstance(response.json()["error"], str)
        assert response.json()["status"] == response.status_code
