"""V2 over REST to the letter: binary tensors, packed bodies, slashes, versions, the repository, errors."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from inference_fakes import GOOD_ROW, SIGNATURE, Platform, StubRuntime, a_platform, a_server, eventually, stub_version
from modelyard_bundle.packaging import Packed
from modelyard_common.auth.tokens import hash_token
from modelyard_contracts.bundle_v1 import Column

INFER = "/v2/models/power/infer"
SECRET = "very-secret-value"


def column(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data} | more


GOOD = {"inputs": [column("load", "FP64", [0.7]), column("price", "FP64", [0.2]), column("day", "BYTES", ["mon"])]}


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)


def binary_body(inputs: list[tuple[str, str, list[int], bytes]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a body whose tensors follow its JSON, and the header that says where."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(content)}}
        for name, datatype, shape, content in inputs
    ]
    text = json.dumps({"inputs": tensors} | more).encode()
    header = {"inference-header-content-length": str(len(text)), "content-type": "application/octet-stream"}
    return text + b"".join(content for *_, content in inputs), header


ROW = [
    ("load", "FP32", [1], np.float32([0.7]).tobytes()),
    ("price", "FP64", [1], np.float64([np.nan]).tobytes()),
    ("day", "BYTES", [1], texts("mon")),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Iterator[httpx.Client]:
    """Give a server that no test changes."""
    with a_platform(tmp_path_factory.mktemp("protocol")) as platform, a_server(platform, bundles) as http:
        yield http


def outputs(response: httpx.Response) -> dict[str, dict[str, Any]]:
    """Return the outputs of a response by name, those in its binary part unpacked."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    document, rest = json.loads(response.content[:length]), response.content[length:]
    for output in document["outputs"]:
        if (size := output.get("parameters", {}).get("binary_data_size")) is not None:
            dtype = {"INT64": "<i8", "FP32": "<f4"}[output["datatype"]]
            output["data"], rest = np.frombuffer(rest[:size], dtype).tolist(), rest[size:]
    assert rest == b""
    return {output["name"]: output for output in document["outputs"]}


def test_binary_tensors_answer_what_json_answers(shared: httpx.Client) -> None:
    body, header = binary_body(ROW)
    plain = {"inputs": [column("load", "FP64", [0.7]), column("price", "FP64", [None]), GOOD["inputs"][2]]}

    binary = outputs(shared.post(INFER, content=body, headers=header))
    text = outputs(shared.post(INFER, json=plain))

    assert binary["predict"]["data"] == text["predict"]["data"]
    assert binary["predict_proba"]["data"] == pytest.approx(text["predict_proba"]["data"], abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "in_binary"),
    [
        ({}, set()),
        ({"parameters": {"binary_data_output": True}}, {"predict", "predict_proba"}),
        ({"outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}]}, {"predict_proba"}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "predict_proba", "parameters": {"binary_data": False}}, {"name": "predict"}],
            },
            {"predict"},
        ),
    ],
    ids=["json", "whole request", "one output", "all but one"],
)
def test_outputs_go_out_as_they_are_asked_for(shared: httpx.Client, asked: dict[str, Any], in_binary: set[str]) -> None:
    response = shared.post(INFER, json=GOOD | asked)

    found = outputs(response)
    assert list(found) == [output["name"] for output in asked.get("outputs", [])] or not asked.get("outputs")
    assert {name for name, output in found.items() if "parameters" in output} == in_binary
    assert ("inference-header-content-length" in response.headers) == bool(in_binary)
    assert response.headers["content-type"] == ("application/octet-stream" if in_binary else "application/json")
    assert found.get("predict", {"data": [1]})["data"] == [1]


BAD_BINARY = {
    "header is no number": (ROW, {"inference-header-content-length": "x"}, "Inference-Header-Content-Length"),
    "header beyond the body": (ROW, {"inference-header-content-length": "99999"}, "Inference-Header-Content-Length"),
    "header missing": (ROW, {"inference-header-content-length": None}, "is not JSON"),
    "raw for several inputs": (ROW, {"inference-header-content-length": "0"}, "one input only"),
    "too few bytes": ([("load", "FP32", [2], b"\0" * 4), *ROW[1:]], {}, "inputs[0]"),
    "text without end": ([*ROW[:2], ("day", "BYTES", [1], struct.pack("<I", 9) + b"mon")], {}, "inputs[2]"),
    "half a length": ([*ROW[:2], ("day", "BYTES", [1], b"\0\0")], {}, "inputs[2]"),
    "text not UTF-8": ([*ROW[:2], ("day", "BYTES", [1], struct.pack("<I", 1) + b"\xff")], {}, "UTF-8"),
    "too many texts": ([*ROW[:2], ("day", "BYTES", [1], texts("a", "b"))], {}, "inputs[2]"),
    "boolean of 2": ([("load", "BOOL", [1], b"\2"), *ROW[1:]], {}, "BOOL"),
}


@pytest.mark.parametrize(("inputs", "headers", "says"), BAD_BINARY.values(), ids=BAD_BINARY.keys())
def test_wrong_binary_requests_are_named(shared: httpx.Client, inputs: Any, headers: Any, says: str) -> None:
    body, header = binary_body(inputs)
    given = {name: value for name, value in (header | headers).items() if value is not None}

    response = shared.post(INFER, content=body, headers=given)

    assert response.status_code == 400, response.text
    assert says in response.json()["error"]


def test_bytes_after_the_last_tensor_are_refused(shared: httpx.Client) -> None:
    body, header = binary_body(ROW)

    response = shared.post(INFER, content=body + b"\0", headers=header)

    assert (response.status_code, "1 bytes after" in response.json()["error"]) == (400, True)


NUMBERS = {
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.mark.parametrize("datatype", [*NUMBERS, "BF16"])
def test_every_number_type_is_taken_as_json_and_as_bytes(shared: httpx.Client, datatype: str) -> None:
    raw = b"\x40\x40" if datatype == "BF16" else NUMBERS[datatype]([3]).tobytes()
    body, header = binary_body([("load", datatype, [1], raw), *ROW[1:]])

    answers = [
        outputs(shared.post(INFER, content=body, headers=header)),
        outputs(shared.post(INFER, json={"inputs": [column("load", datatype, [3]), *GOOD["inputs"][1:]]})),
        outputs(shared.post(INFER, json={"inputs": [column("load", "FP64", [3.0]), *GOOD["inputs"][1:]]})),
    ]

    assert {tuple(answer["predict"]["data"]) for answer in answers} == {(1,)}


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT8", -1), ("UINT64", 2**64), ("INT64", 2**63)])
def test_integers_outside_their_datatype_are_refused(shared: httpx.Client, datatype: str, value: int) -> None:
    response = shared.post(INFER, json={"inputs": [column("load", datatype, [value]), *GOOD["inputs"][1:]]})

    assert response.status_code == 400
    assert str(value) not in response.text


def test_a_raw_body_is_one_input_where_a_model_has_one(platform: Platform, one_feature: Packed) -> None:
    with a_server(platform, (one_feature,)) as http:
        raw = np.float64([0.7]).tobytes()
        response = http.post(INFER, content=raw, headers={"inference-header-content-length": "0"})

    assert outputs(response)["predict"]["data"] == [1]


def test_a_raw_body_to_a_version_is_that_versions_one_input(platform: Platform, one_feature: Packed) -> None:
    other = SIGNATURE.model_copy(update={"features": (Column(name="temperature", type="number"),)})
    raw, header = np.float64([0.7]).tobytes(), {"inference-header-content-length": "0"}
    with a_server(platform, (one_feature,)) as http:
        assert platform.served is not None
        serving = platform.served.find("power")
        platform.served.serve(replace(serving, kept=(stub_version(5, "e", StubRuntime(label=1), other),)))
        response = http.post("/v2/models/power/versions/5/infer", content=raw, headers=header)

    assert outputs(response)["predict"]["data"] == [1]


@pytest.mark.parametrize("rows", [2, 900], ids=["short", "long"])
def test_a_matrix_of_one_column_is_the_one_feature_of_a_model(
    platform: Platform, one_feature: Packed, rows: int
) -> None:
    loads = np.linspace(-1, 1, rows, dtype=np.float32)
    by_name = {"inputs": [column("load", "FP32", loads.tolist())]}
    matrix = {"name": "input-0", "shape": [rows, 1], "datatype": "FP32"}
    body, header = binary_body([("input-0", "FP32", [rows, 1], loads.tobytes())])
    wide = {"inputs": [matrix | {"shape": [rows, 2], "data": [0.5] * 2 * rows}]}
    with a_server(platform, (one_feature,)) as http:
        expected = outputs(http.post(INFER, json=by_name))
        for data in (loads.tolist(), loads.reshape(rows, 1).tolist()):
            assert outputs(http.post(INFER, json={"inputs": [matrix | {"data": data}]})) == expected
        for _ in range(2):  # the second time its head is known
            found = outputs(http.post(INFER, content=body, headers=header))
            assert found["predict"]["data"] == expected["predict"]["data"]
        refused = http.post(INFER, json=wide)
        events = eventually(lambda: platform.drift.role("champion"))

    assert (refused.status_code, "has 2 columns" in refused.text) == (400, True)
    assert {tuple(event["features"]) for event in events} == {("load",)}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_matrices_of_one_column_that_come_at_once_are_answered_as_alone(
    platform: Platform, one_feature: Packed, binary: bool
) -> None:
    loads = np.linspace(-1, 1, 200, dtype=np.float32)

    def ask(load: np.float32) -> Any:
        if binary:
            body, header = binary_body([("input-0", "FP32", [1, 1], load.tobytes())])
            response = http.post(INFER, content=body, headers=header)
        else:
            matrix = {"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [[float(load)]]}
            response = http.post(INFER, json={"inputs": [matrix]})
        return outputs(response)["predict_proba"]["data"]

    with a_server(platform, (one_feature,)) as http, ThreadPoolExecutor(16) as callers:
        alone = [ask(load) for load in loads]
        at_once = list(callers.map(ask, loads))

    assert np.array(at_once) == pytest.approx(np.array(alone), abs=1e-5)
    assert len({tuple(chances) for chances in alone}) == len(loads)


@pytest.fixture(scope="module")
def one_feature(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    from inference_fakes import make_one_feature_bundle

    return make_one_feature_bundle(tmp_path_factory.mktemp("one") / "bundle")


def test_packed_bodies_are_read(shared: httpx.Client) -> None:
    body = json.dumps(GOOD).encode()

    for encoding, packed in {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "identity": body}.items():
        response = shared.post(INFER, content=packed, headers={"content-encoding": encoding})
        assert outputs(response)["predict"]["data"] == [1], encoding
    scored = shared.post(
        "/invocations",
        content=gzip.compress(json.dumps({"instances": [GOOD_ROW]}).encode()),
        headers={"content-encoding": "gzip", "content-type": "application/json"},
    )
    assert scored.json() == {"predictions": [1]}


@pytest.mark.parametrize("padding", [b"", b"\0" * 500], ids=["to the end", "padded"])
@pytest.mark.parametrize("size", [7, 1000, 10**6], ids=str)
def test_a_file_of_gzip_may_be_many_streams(shared: httpx.Client, size: int, padding: bytes) -> None:
    body = json.dumps(GOOD).encode().ljust(200_000 if size > 7 else 0)
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    packed = b"".join(map(gzip.compress, parts)) + padding

    response = shared.post(INFER, content=packed, headers={"content-encoding": "gzip"})

    assert outputs(response)["predict"]["data"] == [1]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_to_the_repository_may_be_packed(shared: httpx.Client, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]

    listed = shared.post(
        "/v2/repository/index", content=pack(b'{"ready": true}'), headers={"content-encoding": encoding}
    )
    refused = shared.post(
        "/v2/repository/models/power/load",
        content=pack(b'{"parameters": {"config": 1}}'),
        headers={"content-encoding": encoding},
    )

    assert [entry["state"] for entry in listed.json()] == ["READY"]
    assert (refused.status_code, "config" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, deflate;q=0.5, gzip;q=0.4", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("br", None),
        ("gzip;q=0.0", None),
        ("identity", None),
    ],
)
@pytest.mark.parametrize("rows", [2_000, 10_000], ids=["on the loop", "in a thread"])
def test_large_answers_are_packed_for_those_who_ask(
    shared: httpx.Client, rows: int, accepted: str, encoding: str | None
) -> None:
    many = {"inputs": [{**one, "shape": [rows], "data": one["data"] * rows} for one in GOOD["inputs"]]}

    response = shared.post(INFER, json=many, headers={"accept-encoding": accepted})

    assert response.headers.get("content-encoding") == encoding
    assert response.headers["vary"] == "accept-encoding"
    assert outputs(response)["predict"]["data"] == [1] * rows


def test_small_answers_are_never_packed(shared: httpx.Client) -> None:
    response = shared.post(INFER, json=GOOD, headers={"accept-encoding": "gzip"})

    assert "content-encoding" not in response.headers


def test_a_packed_body_is_bounded_by_what_is_in_it(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    bombs = (gzip.compress(b" " * 50_000_000), gzip.compress(b" " * 60_000) * 2)
    with a_server(platform, bundles, max_body_bytes=100_000) as http:
        refused = [http.post(INFER, content=bomb, headers={"content-encoding": "gzip"}) for bomb in bombs]

    assert max(map(len, bombs)) < 100_000
    assert [(one.status_code, "once unpacked" in one.json()["error"]) for one in refused] == [(413, True)] * 2


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}")[:-4], 400),
        ("gzip", gzip.compress(b"{}") * 2, 400),
        ("gzip", gzip.compress(b"{}") + b"x", 400),
        ("gzip", gzip.compress(b"{}") + b"\0x", 400),
        ("gzip", gzip.compress(b"{}") + gzip.compress(b" ")[:-1], 400),
        ("gzip", gzip.compress(b"") * 5000, 400),
        ("deflate", zlib.compress(b"{}") * 2, 400),
    ],
    ids=[
        "unknown",
        "twice",
        "not packed",
        "cut",
        "two documents",
        "something behind",
        "something behind zeros",
        "cut in the second",
        "too many streams",
        "two streams without a file",
    ],
)
def test_wrong_encodings_are_refused(shared: httpx.Client, encoding: str, content: bytes, status: int) -> None:
    response = shared.post(INFER, content=content, headers={"content-encoding": encoding})

    assert (response.status_code, response.json().keys() >= {"error"}) == (status, True)


def test_bodies_need_no_content_type(shared: httpx.Client) -> None:
    request = shared.build_request("POST", INFER, content=json.dumps(GOOD).encode())
    request.headers.pop("content-type", None)

    assert outputs(shared.send(request))["predict"]["data"] == [1]


GETS = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/power",
    "/v2/models/power/ready",
    "/v2/models/power/versions/1",
    "/v2/models/power/versions/@champion/ready",
    "/v1/models",
    "/v1/models/power",
    "/v1/models/power/versions/1",
    "/v1/models/power/labels/champion",
    "/ping",
    "/version",
]


@pytest.mark.parametrize("path", GETS)
def test_a_slash_at_the_end_changes_nothing(shared: httpx.Client, path: str) -> None:
    plain, slashed = shared.get(path), shared.get(f"{path}/")

    assert (plain.status_code, slashed.status_code) == (200, 200)
    assert plain.content == slashed.content


@pytest.mark.parametrize("version", ["1", "@champion", "champion", "digest"])
def test_every_protocol_takes_a_version_or_an_alias(
    shared: httpx.Client, bundles: tuple[Packed, Packed], version: str
) -> None:
    if version == "digest":
        version = str(bundles[0].digest)
    calls = {
        f"/v2/models/power/versions/{version}/infer": GOOD,
        f"/v2/models/power/versions/{version}/infer/": GOOD,
        f"/models/power/versions/{version}/invocations": {"dataframe_records": [GOOD_ROW]},
        f"/v1/models/power/versions/{version}:predict": {"instances": [GOOD_ROW]},
    }

    for path, body in calls.items():
        response = shared.post(path, json=body)
        assert response.status_code == 200, (path, response.text)
        assert response.headers["modelyard-version"] == str(bundles[0].digest)
    assert shared.get(f"/v2/models/power/versions/{version}").json()["name"] == "power"


@pytest.mark.parametrize("path", ["/v2/models/power/versions/9/infer", "/v2/models/nobody/infer"])
def test_what_there_is_not_is_not_found(shared: httpx.Client, path: str) -> None:
    response = shared.post(path, json=GOOD)

    assert (response.status_code, "error" in response.json()) == (404, True)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/models/power/nothing",
        "/v2/models",
        "/v1/models/power/nothing",
        "/v1/models/power/versions",
        "/v1/models/nobody/versions/1",
        "/v1/models/power/versions/9",
        "/v1/models/power/labels/candidate",
        "/v1/models/power/labels/1",
    ],
)
def test_unknown_paths_answer_with_the_protocols_error(shared: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        response = shared.request(method, path)
        assert (response.status_code, "error" in response.json()) == (404, True), method


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        (INFER, {"error", "detail", "status"}),
        ("/v2/models/power/versions/1/infer/", {"error", "detail", "status"}),
        ("/invocations", {"error_code", "message"}),
        ("/models/power/invocations", {"error_code", "message"}),
        ("/v1/models/power:predict", {"error"}),
        ("/v1/models/power:explain", {"error"}),
        ("/v1/models/power/versions/1:explain/", {"error"}),
        ("/v1/models/power/labels/champion:explain", {"error"}),
    ],
)
def test_what_predicts_or_explains_takes_post_alone_and_says_so_as_its_protocol_does(
    shared: httpx.Client, method: str, path: str, says: set[str]
) -> None:
    response = shared.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or response.json().keys() >= says


def test_statistics_count_what_a_version_has_done(shared: httpx.Client) -> None:
    def counted() -> tuple[int, int]:
        [found] = shared.get("/v2/models/power/versions/1/stats").json()["model_stats"]
        assert found["inference_stats"]["success"]["count"] == found["execution_count"]
        return found["execution_count"], found["inference_count"]

    before = counted()
    shared.post("/v1/models/power:predict", json={"instances": [GOOD_ROW] * 3}).raise_for_status()

    assert counted() == (before[0] + 1, before[1] + 3)
    assert shared.get("/v2/models/stats").json()["model_stats"][0]["version"] == "1"


@pytest.mark.parametrize("path", ["stats", "config", "versions/9/stats", "versions/9/config"])
def test_configuration_and_statistics_are_of_what_there_is(shared: httpx.Client, path: str) -> None:
    wrong = f"/v2/models/power/{path}" if "9" in path else f"/v2/models/nobody/{path}"

    response = shared.get(wrong)

    assert (response.status_code, "error" in response.json()) == (404, True)


def test_v1_speaks_rows_columns_and_labels(shared: httpx.Client) -> None:
    columns = {name: [value, value] for name, value in GOOD_ROW.items()}

    rows = shared.post("/v1/models/power:predict", json={"instances": [GOOD_ROW, GOOD_ROW]})
    by_column = shared.post("/v1/models/power/labels/champion:predict", json={"inputs": columns})
    wrong = shared.post("/v1/models/power:predict", json={"rows": []})

    assert rows.json() == {"predictions": [1, 1]}
    assert by_column.json() == {"outputs": [1, 1]}
    assert (wrong.status_code, list(wrong.json())) == (400, ["error"])
    assert shared.get("/").json() == {"status": "alive"}
    assert (shared.get("/v1/models/nobody").status_code, "error" in shared.get("/v1/models/nobody").json()) == (
        404,
        True,
    )


@pytest.mark.parametrize("path", ["versions/1", "versions/@champion", "labels/champion", "labels/@champion"])
def test_v1_says_of_a_version_whether_it_is_ready(shared: httpx.Client, path: str) -> None:
    assert shared.get(f"/v1/models/power/{path}").json() == {"name": "power", "ready": True}


def test_v1_lists_models_by_name_as_kserve_does(shared: httpx.Client) -> None:
    assert shared.get("/v1/models").json() == {"models": ["power"]}


def test_requests_as_mlservers_clients_encode_data_frames_are_taken(shared: httpx.Client) -> None:
    text = {"parameters": {"content_type": "str"}}
    body = {
        "parameters": {"content_type": "pd"},
        "inputs": [
            {"name": "load", "shape": [2, 1], "datatype": "FP64", "data": [0.7, -3.0]},
            {"name": "day", "shape": [2, 1], "datatype": "BYTES", "data": ["mon", "tue"], **text},
        ],
        "outputs": [{"name": "predict", "parameters": {"content_type": "np"}}],
    }

    assert outputs(shared.post(INFER, json=body))["predict"]["data"] == [1, 0]


@pytest.mark.parametrize("in_binary", [False, True], ids=["json", "binary"])
def test_texts_in_base64_are_read_where_a_tensor_says_so(platform: Platform, bundles: Any, in_binary: bool) -> None:
    day = base64.b64encode("März".encode()).decode()
    with a_server(platform, bundles) as http:
        if in_binary:
            body, header = binary_body([*ROW[:2], ("day", "BYTES", [1], texts(day))])
            length = int(header["inference-header-content-length"])
            document = json.loads(body[:length])
            document["inputs"][2]["parameters"]["content_type"] = "base64"
            text = json.dumps(document).encode()
            header["inference-header-content-length"] = str(len(text))
            for _ in range(2):  # the second time its head is known
                response = http.post(INFER, content=text + body[length:], headers=header)
                assert response.status_code == 200, response.text
        else:
            said = column("day", "BYTES", [day], parameters={"content_type": "base64"})
            response = http.post(INFER, json={"inputs": [*GOOD["inputs"][:2], said]})
            assert response.status_code == 200, response.text
        events = eventually(lambda: platform.drift.role("champion"))

    assert {event["features"]["day"] for event in events} == {"März"}


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (column("day", "BYTES", [SECRET], parameters={"content_type": "base64"}), "inputs[0]: holds values"),
        (column("day", "BYTES", ["_w=="], parameters={"content_type": "base64"}), "inputs[0]: holds values"),
        (column("day", "BYTES", ["/w=="], parameters={"content_type": "base64"}), "inputs[0]: holds values"),
        (column("day", "BYTES", ["mon"], parameters={"content_type": "pd_json"}), "'pd_json' is not known"),
        (column("day", "BYTES", ["mon"], parameters={"content_type": "x" * 999}), "x' is not known; there is base64"),
        (column("day", "BYTES", ["mon"], parameters={"content_type": ["np"]}), "content_type: it is not known"),
        (column("load", "FP64", [1.0], parameters={"content_type": "base64"}), "for BYTES only"),
        (
            {"name": "m", "shape": [1, 200], "datatype": "FP64", "data": [1.5] * 200}
            | {"parameters": {"content_type": "datetime"}},
            "'datetime' is not known",
        ),
    ],
)
def test_a_tensor_that_is_written_otherwise_than_it_says_is_refused(
    shared: httpx.Client, tensor: dict[str, Any], says: str
) -> None:
    response = shared.post(INFER, json={"inputs": [tensor]})

    assert (response.status_code, says in response.json()["error"]) == (400, True), response.text
    assert SECRET not in response.text and "x" * 65 not in response.text


@pytest.mark.parametrize("content_type", ["np", "pd", "str", None])
def test_content_types_that_say_nothing_new_change_nothing(shared: httpx.Client, content_type: str | None) -> None:
    said = {"parameters": {"content_type": content_type}}
    body = {"inputs": [one | said for one in GOOD["inputs"]], "outputs": [{"name": "predict"} | said]} | said

    assert outputs(shared.post(INFER, json=body))["predict"]["data"] == [1]


MATRIX = {"name": "m", "shape": [1, 200], "datatype": "FP64", "data": [1.5] * 200}


@pytest.mark.parametrize("content_type", ["base64", "pd_json", "", 7, ["np"], "x" * 999])
@pytest.mark.parametrize("inputs", [GOOD["inputs"], [MATRIX]], ids=["columns", "one matrix"])
def test_a_request_that_is_written_otherwise_than_it_says_is_refused(
    shared: httpx.Client, inputs: list[dict[str, Any]], content_type: Any
) -> None:
    said = {"parameters": {"content_type": content_type}}

    of_all = shared.post(INFER, json={"inputs": inputs} | said)
    of_an_output = shared.post(INFER, json={"inputs": inputs, "outputs": [{"name": "predict"} | said]})

    for response, path in ((of_all, "parameters"), (of_an_output, "outputs[0].parameters")):
        message = response.json()["error"]
        assert (response.status_code, message.startswith(f"{path}.content_type: ")) == (400, True), message
        assert "is not known; there is np, pd, str" in message and "x" * 65 not in message


@pytest.mark.parametrize(
    "said",
    [
        {"priority": 1},
        {"headers": {"a": "b"}},
        {"triton_enable_empty_final_response": True},
        {"x": [1], "event_type": "sale", "lot": 7, "temperature": 0.5},
        {"logo": "a", "blog": "b", "logs": 1, "outputs": 2, "request_time": 3},
        {f"x{number}": number for number in range(64)},
    ],
    ids=["priority", "headers", "Triton's own", "custom", "alike", "many"],
)
def test_parameters_that_no_model_reads_change_nothing(shared: httpx.Client, said: dict[str, Any]) -> None:
    assert outputs(shared.post(INFER, json=GOOD | {"parameters": said})) == outputs(shared.post(INFER, json=GOOD))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("timout", "there is timeout"),
        ("timeout_ms", "there is timeout"),
        ("routingKey", "there is routing_key"),
        ("event-time", "there is event_time"),
        ("eventtime", "there is event_time"),
        ("Log", "there is log"),
        ("no_log", "there is log"),
        ("routing", "there is routing_key"),
        ("route_key", "there is routing_key"),
        ("request_timeout", "there is timeout"),
        ("binary_output", "there is binary_data_output"),
        ("modelyard-timeout-ms", "there is timeout"),
        ("modelyard_colour", "there is binary_data_output, content_type, event_time, log"),
        ("sequence_id", "'sequence_id' is not offered"),
    ],
)
def test_a_parameter_that_would_be_missed_is_refused(shared: httpx.Client, said: str, says: str) -> None:
    response = shared.post(INFER, json=GOOD | {"parameters": {"priority": 1, said: SECRET}})

    assert (response.status_code, says in response.json()["error"], SECRET in response.text) == (400, True, False)


def test_no_more_parameters_are_compared_with_ours_than_some(shared: httpx.Client) -> None:
    response = shared.post(INFER, json=GOOD | {"parameters": {f"x{number}": 1 for number in range(65)}})

    assert (response.status_code, "parameters: has 65 names" in response.json()["error"]) == (400, True)


def test_the_timeout_parameter_is_microseconds(shared: httpx.Client) -> None:
    calm = shared.post(INFER, json=GOOD | {"parameters": {"timeout": 5_000_000}})
    late = shared.post(INFER, json=GOOD | {"parameters": {"timeout": 1}})
    wrong = shared.post(INFER, json=GOOD | {"parameters": {"timeout": "soon"}})

    assert (calm.status_code, late.status_code, wrong.status_code) == (200, 504, 400)
    assert late.headers["retry-after"] == "1"


def test_unload_and_load_turn_a_model_off_and_on(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        unloaded = http.post("/v2/repository/models/power/unload", json={"parameters": {"unload_dependents": False}})
        off = (http.post(INFER, json=GOOD).status_code, http.get("/v2/models/power/ready").status_code)
        entries = http.post("/v2/repository/index").json()
        ready = http.post("/v2/repository/index", json={"ready": True}).json()
        platform.registry.route("power", str(bundles[1].digest))
        still_off = http.get("/v2/models/power/ready").status_code
        loaded = http.post("/v2/repository/models/power/load")
        second = str(bundles[1].digest)
        eventually(lambda: http.post(INFER, json=GOOD).headers.get("modelyard-version") == second)

    assert (unloaded.status_code, loaded.status_code) == (200, 200)
    assert off == (503, 503) and still_off == 503
    assert entries == [
        {"name": "power", "version": "", "state": "UNAVAILABLE", "reason": "it was unloaded here by request"}
    ]
    assert ready == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/repository/models/nobody/load", b"", 404),
        ("/v2/repository/models/nobody/unload", b"", 404),
        ("/v2/repository/models/power/load", b'{"parameters": {"config": "{}"}}', 400),
        ("/v2/repository/models/power/load", b"[", 400),
        ("/v2/repository/index", b'{"ready": 7}', 400),
        ("/v2/repository/index", b"{}" + b" " * 65_535, 413),
    ],
)
def test_wrong_repository_requests_are_named(shared: httpx.Client, path: str, body: bytes, status: int) -> None:
    response = shared.post(path, content=body)

    assert (response.status_code, "error" in response.json()) == (status, True)


def test_only_admins_and_services_load_and_unload(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{role} {role} {hash_token(role)}\n" for role in ("client", "admin")))
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    settings = {"auth": "token", "tokens_file": tokens}
    with platform.inference(**settings) as url, httpx.Client(base_url=url, trust_env=False) as http:

        def post(role: str, path: str) -> httpx.Response:
            return http.post(path, headers={"authorization": f"Bearer {role}"})

        eventually(lambda: post("admin", "/v2/repository/index").json())
        denied = [post("client", f"/v2/repository/models/power/{verb}") for verb in ("load", "unload")]
        nobody = http.post(INFER, json=GOOD)
        scoring = http.post("/invocations", json={})
        v1 = [http.post(f"/v1/models/power{verb}", json={}) for verb in (":predict", ":explain")]
        v1 += [http.get(f"/v1/models{below}") for below in ("", "/power", "/power/versions/1", "/power/nothing")]
        done = post("admin", "/v2/repository/models/power/unload")

    assert [response.status_code for response in denied] == [403, 403]
    assert "error" in denied[0].json()
    assert (nobody.status_code, done.status_code) == (401, 200)
    assert "bearer token" in nobody.json()["error"]
    assert scoring.json()["error_code"] == "UNAUTHENTICATED"
    assert [(response.status_code, list(response.json())) for response in v1] == [(401, ["error"])] * 6


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (INFER, '{"id": "%s", "inputs": [{"name": "load", "shape": [1], "datatype": "FP64", "data": [NaN]}]}'),
        (INFER, '{"inputs": [{"name": "%s", "shape": [1], "datatype": "FP64", "data": [NaN]}]}'),
        (
            INFER,
            '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [NaN]}], "parameters": {"%s": 1}}',
        ),
        ("/invocations", '{"dataframe_records": [{"load": NaN, "price": 1, "day": "%s"}]}'),
        ("/invocations", '{"dataframe_records": [{"load": NaN, "%s": 1}]}'),
        ("/v1/models/power:predict", '{"instances": [{"load": NaN}], "parameters": {"%s": 1}}'),
        ("/v1/models/power:predict", '{"instances": [{"load": NaN}], "parameters": {"routing_key": "%s"}}'),
    ],
)
@pytest.mark.parametrize("half", [b"\\ud800", b"\xed\xa0\x80"], ids=["escaped", "as bytes"])
def test_half_a_character_is_no_json_beside_a_nan_either(
    shared: httpx.Client, path: str, content: str, half: bytes
) -> None:
    body = content.replace("%s", "half").encode().replace(b"half", half)

    for _ in range(2):  # the second time the head is known
        found = shared.post(path, content=body)
        assert (found.status_code, "is not JSON" in found.text) == (400, True)
    assert shared.post(INFER, content=json.dumps(GOOD)).status_code == 200


def test_a_whole_character_is_json_beside_a_nan(shared: httpx.Client) -> None:
    row = '{"dataframe_records": [{"load": 1.0, "price": NaN, "day": "\\ud83d\\ude00"}]}'

    assert shared.post("/invocations", content=row).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/power:predict", "/v1/models/power:explain"])
def test_a_caller_may_wait_longer_than_any_float_says(shared: httpx.Client, path: str) -> None:
    body = {"instances": [GOOD_ROW], "parameters": {"timeout": 10**400}}

    assert shared.post(path, content=json.dumps(body)).status_code == 200


@pytest.mark.parametrize("shape", [[10**4000, 10**4000], [2**63], [1, 10**30]], ids=["both", "rows", "features"])
def test_a_shape_beyond_all_bounds_is_refused(shared: httpx.Client, shape: list[int]) -> None:
    body = {"inputs": [{"name": "load", "shape": shape, "datatype": "FP64", "data": [1.0]}]}

    found = shared.post(INFER, content=json.dumps(body))

    assert (found.status_code, "inputs[0].shape" in found.text) == (400, True)
