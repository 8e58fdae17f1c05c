from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import FakeClock
from modelyard_contracts.bundle_v1 import BundleManifest, manifest_digest
from registry_fakes import FakeBundle, FakeEvidence, FakeMlflow, Platform, evaluation, make_bundle, role, serving


def offer(platform: Platform, bundle: FakeBundle, run_id: str | None = None, **changes: Any) -> Any:
    body = {"digest": bundle.digest, "mlflow_run_id": run_id or platform.mlflow.add_run(bundle), "run": "r", **changes}
    return platform.http.post("/v1/models/m/versions", json=body)


def cached(platform: Platform, bundle: FakeBundle) -> Any:
    return platform.settings.data_dir / "cache" / bundle.digest.removeprefix("sha256:")


def test_every_file_is_served_with_its_digest_as_etag(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    for path, content in bundle.files.items():
        answer = platform.http.get(f"/v1/models/m/versions/{bundle.digest}/files/{path}")
        assert answer.content == content
        assert answer.headers["etag"] == f'"sha256:{hashlib.sha256(content).hexdigest()}"'
    again = platform.http.get(
        f"/v1/models/m/versions/1/files/{path}", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304
    assert platform.http.get("/v1/models/m/versions/1/files/../../registry.db").status_code == 404
    assert platform.http.get("/v1/models/m/versions/1/files/%2e%2e/%2e%2e/registry.db").status_code == 404


def test_bundles_are_served_while_mlflow_is_down(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    platform.mlflow.down = True
    answer = platform.http.get("/v1/models/m/versions/1/files/model.onnx")
    assert answer.content == bundle.files["model.onnx"]


def test_lost_or_damaged_cache_is_fetched_again_and_says_so_when_it_cannot_be(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    (cached(platform, bundle) / "model.onnx").write_bytes(b"flipped")
    platform.mlflow.down = True
    away = platform.http.get("/v1/models/m/versions/1/files/model.onnx")
    assert away.status_code == 503
    assert "MLflow cannot be reached" in away.json()["detail"]
    platform.mlflow.down = False
    assert platform.http.get("/v1/models/m/versions/1/files/model.onnx").content == bundle.files["model.onnx"]


def test_artifact_that_changed_in_mlflow_is_never_served(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    platform.mlflow.runs["run0"]["bundle/model.onnx"] = b"w9"
    assert platform.http.get("/v1/models/m/versions/1/files/model.onnx").content == b"w1"
    (cached(platform, bundle) / "model.onnx").unlink()
    answer = platform.http.get("/v1/models/m/versions/1/files/model.onnx")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "model.onnx"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"bundle/model.onnx": b"other!"}, "model.onnx", id="a file with other bytes"),
        pytest.param({"bundle/model.onnx": b"w1 and more"}, "model.onnx", id="a file that is longer"),
        pytest.param({"bundle/model.onnx": None}, "model.onnx", id="a file that is missing"),
        pytest.param({"bundle/extra/code.py": b"x"}, "extra/code.py", id="a file that is not listed"),
        pytest.param({"bundle/modelyard.json": b"{}"}, "modelyard.json", id="a manifest that is none"),
    ],
)
def test_bundle_that_differs_from_its_manifest_is_refused_by_name(
    platform: Platform, change: dict[str, bytes | None], path: str
) -> None:
    platform.apply()
    bundle = make_bundle()
    run_id = platform.mlflow.add_run(bundle)
    for name, content in change.items():
        if content is None:
            del platform.mlflow.runs[run_id][name]
        else:
            platform.mlflow.runs[run_id][name] = content
    answer = offer(platform, bundle, run_id)
    assert answer.status_code == 422
    assert path in {error["path"] for error in answer.json()["errors"]}
    assert not cached(platform, bundle).exists()
    assert [item.name for item in cached(platform, bundle).parent.iterdir()] == []


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "model.pkl", "code\\x", "./x", ""])
def test_bundle_with_a_dangerous_path_or_a_pickle_is_refused(platform: Platform, path: str) -> None:
    platform.apply()
    bundle = make_bundle(files={path: b"x"})
    answer = offer(platform, bundle)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == path


def test_the_operators_waiver_for_pickles_ends_after_its_day_and_takes_nothing_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    today = FakeClock().now().date()
    with serving(database, tmp_path, FakeMlflow(), FakeEvidence(), pickles_until=today) as platform:
        platform.apply()
        bundle = make_bundle(files={"model.pkl": b"x"})
        taken = offer(platform, bundle)
        platform.clock.advance(86400)
        late = offer(platform, make_bundle(files={"model.pkl": b"y"}))
        (cached(platform, bundle) / "model.pkl").unlink()
        still = platform.http.get("/v1/models/m/versions/1/files/model.pkl")

    assert (taken.status_code, late.status_code) == (201, 422)
    assert (still.status_code, still.content) == (200, b"x")


def test_digest_that_is_not_the_manifests_is_refused(platform: Platform) -> None:
    platform.apply()
    bundle = make_bundle()
    answer = offer(platform, bundle, digest="sha256:" + "1" * 64)
    assert answer.status_code == 422
    assert bundle.digest in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "changes",
    [{"mlflow_run_id": "nope"}, {"artifact_path": "elsewhere"}, {"artifact_path": "../run1/artifacts/bundle"}],
)
def test_bundle_that_is_not_there_is_a_clear_error(platform: Platform, changes: dict[str, str]) -> None:
    platform.apply()
    answer = offer(platform, make_bundle(), **changes)
    assert answer.status_code == 422, answer.text


def test_registering_while_mlflow_is_down_is_unavailable_and_leaves_nothing(platform: Platform) -> None:
    platform.apply()
    bundle = make_bundle()
    run_id = platform.mlflow.add_run(bundle)
    platform.mlflow.down = True
    answer = offer(platform, bundle, run_id)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert platform.http.get("/v1/models/m/versions").json()["items"] == []
    platform.mlflow.down = False
    judged = evaluation("test", **{role("candidate", bundle): 0.7})
    assert offer(platform, bundle, run_id, evaluation=judged).status_code == 201


def test_digest_does_not_change_when_the_manifest_gains_a_field_with_a_default() -> None:
    manifest = BundleManifest.model_validate_json(make_bundle().files["modelyard.json"])

    class Wider(BundleManifest):
        licence: str = ""

    assert manifest_digest(Wider.model_validate(manifest.model_dump())) == manifest_digest(manifest)


def test_cache_that_cannot_be_written_is_unavailable_and_registers_nothing(platform: Platform) -> None:
    platform.apply()
    (platform.settings.data_dir / "cache").write_text("in the way")
    answer = offer(platform, make_bundle())
    assert answer.status_code == 503
    assert "the bundle cache cannot be written" in answer.json()["detail"]
    assert platform.http.get("/v1/models/m/versions").json()["items"] == []
