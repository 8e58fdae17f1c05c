"""curl, as people paste it into a shell."""

from __future__ import annotations

import gzip
import json
import subprocess
from typing import Any

from harness import Stage, expect, run

V2 = {
    "inputs": [
        {"name": "load", "shape": [1], "datatype": "FP64", "data": [0.7]},
        {"name": "price", "shape": [1], "datatype": "FP64", "data": [0.2]},
        {"name": "day", "shape": [1], "datatype": "BYTES", "data": ["mon"]},
    ]
}
ROW = {"load": 0.7, "price": 0.2, "day": "mon"}
JSON = "Content-Type: application/json"


def curl(stage: Stage, path: str, *options: str, body: bytes | None = None) -> tuple[int, str]:
    command = ["curl", "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", *options, stage.url + path]
    if body is not None:
        command[1:1] = ["--data-binary", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=60)
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text


def answer(stage: Stage, path: str, *options: str, body: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, text = curl(stage, path, *options, body=content)
    expect(status == 200, text)
    return json.loads(text)


def expect_one(found: Any) -> None:
    expect(found["outputs"][0]["data"] == [1], found)


def health_of_server_and_model(stage: Stage) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/power/ready", "/v2/models/power/versions/1/ready"):
        for slash in ("", "/"):
            expect(curl(stage, path + slash)[0] == 200, path + slash)


def metadata_of_server_and_model(stage: Stage) -> None:
    for path in ("/v2", "/v2/", "/v2/models/power", "/v2/models/power/versions/1", "/v2/models/power/versions/1/"):
        status, text = curl(stage, path)
        expect(status == 200 and "name" in json.loads(text), path)


def V2_infer(stage: Stage) -> None:
    expect_one(answer(stage, "/v2/models/power/infer", "--header", JSON, body=V2))


def V2_infer_without_a_content_type(stage: Stage) -> None:
    expect_one(answer(stage, "/v2/models/power/infer", "--header", "Content-Type:", body=V2))


def V2_infer_with_a_slash_at_the_end(stage: Stage) -> None:
    expect_one(answer(stage, "/v2/models/power/infer/", body=V2))


def V2_infer_with_a_gzip_body(stage: Stage) -> None:
    packed = gzip.compress(json.dumps(V2).encode())
    expect_one(answer(stage, "/v2/models/power/infer", "--header", "Content-Encoding: gzip", body=packed))


def V2_infer_by_version_and_alias(stage: Stage) -> None:
    for version in ("1", "@champion", "champion"):
        expect_one(answer(stage, f"/v2/models/power/versions/{version}/infer", body=V2))


def V2_repository_index(stage: Stage) -> None:
    status, text = curl(stage, "/v2/repository/index", "--request", "POST")
    expect(status == 200 and json.loads(text)[0]["state"] == "READY", text)


def V2_errors(stage: Stage) -> None:
    for path, body, wanted in (
        ("/v2/models/power/infer", b"{", 400),
        ("/v2/models/nobody/infer", b"{}", 400),
        ("/v2/models/nobody", None, 404),
        ("/v2/nothing", None, 404),
    ):
        status, text = curl(stage, path, body=body)
        expect(status == wanted and "error" in json.loads(text), (path, status, text))


def V1_predict(stage: Stage) -> None:
    found = answer(stage, "/v1/models/power:predict", body={"instances": [ROW]})
    expect(found == {"predictions": [1]}, found)


def invocations_with_JSON(stage: Stage) -> None:
    split = {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}
    for body in (
        split,
        {"dataframe_records": [ROW]},
        {"instances": [ROW]},
        {"inputs": {k: [v] for k, v in ROW.items()}},
    ):
        for path in ("/invocations", "/models/power/invocations", "/models/power/versions/@champion/invocations"):
            found = answer(stage, path, "--header", JSON, body=body)
            expect(found == {"predictions": [1]}, found)


def invocations_with_CSV(stage: Stage) -> None:
    found = answer(stage, "/invocations", "--header", "Content-Type: text/csv", body=b"load,price,day\n0.7,0.2,mon\n")
    expect(found == {"predictions": [1]}, found)


def invocations_in_another_media_type(stage: Stage) -> None:
    status, _ = curl(stage, "/invocations", "--header", "Content-Type: text/html", body=b"<p>")
    expect(status == 415, status)


if __name__ == "__main__":
    run(
        [
            health_of_server_and_model,
            metadata_of_server_and_model,
            V2_infer,
            V2_infer_without_a_content_type,
            V2_infer_with_a_slash_at_the_end,
            V2_infer_with_a_gzip_body,
            V2_infer_by_version_and_alias,
            V2_repository_index,
            V2_errors,
            V1_predict,
            invocations_with_JSON,
            invocations_with_CSV,
            invocations_in_another_media_type,
        ]
    )
