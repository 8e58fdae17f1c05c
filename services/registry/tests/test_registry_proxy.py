from __future__ import annotations

import httpx
import pytest
from modelyard_registry.adapters.mlflow_proxy import MlflowProxy
from modelyard_registry.domain.mlflow_routes import allowed
from registry_fakes import Platform, as_streamed

READS = [
    ("GET", "/api/2.0/mlflow/registered-models/get"),
    ("GET", "/api/2.0/mlflow/registered-models/alias"),
    ("GET", "/api/2.0/mlflow/registered-models/search"),
    ("GET", "/api/2.0/mlflow/model-versions/get-download-uri"),
    ("GET", "/api/2.0/mlflow/logged-models/m-0123"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/bundle/MLmodel"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("POST", "/api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/logged-models/search"),
]
REFUSED = [
    ("POST", "/api/2.0/mlflow/registered-models/create"),
    ("DELETE", "/api/2.0/mlflow/registered-models/alias"),
    ("POST", "/api/2.0/mlflow/registered-models/alias"),
    ("POST", "/api/2.0/mlflow/model-versions/create"),
    ("POST", "/api/2.0/mlflow/runs/create"),
    ("POST", "/api/2.0/mlflow/logged-models"),
    ("PATCH", "/api/2.0/mlflow/logged-models/m-0123"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/bundle/MLmodel"),
    ("GET", "/api/2.0/mlflow-artifacts/presigned/1/run"),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/1/run"),
    ("GET", "/api/2.0/mlflow/webhooks"),
    ("GET", "/ajax-api/2.0/mlflow/registered-models/get"),
    ("GET", "/ajax-api/3.0/jobs"),
    ("POST", "/graphql"),
    ("GET", "/get-artifact"),
    ("GET", "/model-versions/get-artifact"),
    ("POST", "/gateway/chat"),
    ("POST", "/v1/traces"),
    ("HEAD", "/api/2.0/mlflow/registered-models/get"),
    ("GET", "/api/2.0/mlflow/registered-models/get/"),
    ("GET", "/api/2.0/mlflow/registered-models/something-new"),
]


@pytest.mark.parametrize(("method", "path"), READS)
def test_reads_pass(method: str, path: str) -> None:
    assert allowed(method, path)


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_everything_else_is_refused_in_mlflows_own_words(platform: Platform, method: str, path: str) -> None:
    answer = platform.http.request(method, path, json={} if method not in ("GET", "HEAD") else None)
    assert answer.status_code == 403
    if method != "HEAD":
        assert answer.json()["error_code"] == "PERMISSION_DENIED"
        assert "refused" in answer.json()["message"]
    assert platform.mlflow.calls == []


@pytest.mark.parametrize(
    "path",
    ["1/run/../../../x", "1/run/./x", "1\\run", "1/run/%2e%2e", "1/a?b"],
)
def test_artifact_paths_that_climb_or_hide_are_refused(path: str) -> None:
    assert not allowed("GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}")


def test_refusal_says_what_to_do_instead(platform: Platform) -> None:
    answer = platform.http.post("/api/2.0/mlflow/registered-models/alias", json={})
    assert "modelyard promote" in answer.json()["message"]


def test_read_is_passed_on_with_its_answer(platform: Platform) -> None:
    platform.apply()
    platform.champion()
    platform.mirror()
    answer = platform.http.get("/api/2.0/mlflow/registered-models/get", params={"name": "m"})
    assert answer.json()["registered_model"]["aliases"] == [{"alias": "champion", "version": "1"}]
    missing = platform.http.get("/api/2.0/mlflow/registered-models/get", params={"name": "nope"})
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_governed_files_come_verified_out_of_the_cache_whatever_mlflow_has(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    folder = "/api/2.0/mlflow-artifacts/artifacts/1/run0/artifacts"
    platform.mlflow.runs["run0"] |= {"bundle/model.onnx": b"tampered", "bundle/smuggled.py": b"x", "notes.txt": b"n"}
    assert platform.http.get(f"{folder}/bundle/model.onnx").content == bundle.files["model.onnx"]
    assert platform.http.get(f"{folder}/bundle/modelyard.json").content == bundle.files["modelyard.json"]
    smuggled = platform.http.get(f"{folder}/bundle/smuggled.py")
    assert (smuggled.status_code, smuggled.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert platform.http.get(f"{folder}/notes.txt").content == b"n"
    platform.mlflow.down = True
    assert platform.http.get(f"{folder}/bundle/model.onnx").is_success
    assert platform.http.get(f"{folder}/notes.txt").status_code == 503


def test_mlflow_that_is_down_is_said_at_once_with_a_short_retry(platform: Platform) -> None:
    platform.mlflow.down = True
    answer = platform.http.get("/api/2.0/mlflow/registered-models/get", params={"name": "m"})
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert answer.headers["retry-after"] == "1"


def test_credentials_and_client_headers_stay_here() -> None:
    seen: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen.update(request.headers)
        return as_streamed(httpx.Response(200, headers={"Set-Cookie": "a=b", "ETag": '"1"'}, content=b"ok"))

    http = httpx.Client(base_url="http://mlflow.test/prefix", transport=httpx.MockTransport(answer))
    proxy = MlflowProxy(http, max_bytes=10, deadline_s=5)
    sent = {"authorization": "Bearer x", "cookie": "c", "x-forwarded-for": "1", "range": "bytes=0-1", "host": "us"}
    passed = proxy.forward("GET", "/api/x", "a=1", sent, b"")
    assert b"".join(passed.body) == b"ok"
    assert {"authorization", "cookie", "x-forwarded-for"}.isdisjoint(seen)
    assert (seen["range"], seen["host"]) == ("bytes=0-1", "mlflow.test")
    assert dict(passed.headers).keys() == {"etag", "content-length"}


def test_answer_over_the_bound_is_broken_off() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=(b"x" * 8 for _ in range(100)))

    http = httpx.Client(base_url="http://mlflow.test", transport=httpx.MockTransport(endless))
    passed = MlflowProxy(http, max_bytes=20, deadline_s=5).forward("GET", "/api/x", "", {}, b"")
    with pytest.raises(Exception, match="exceeds its bound"):
        list(passed.body)
