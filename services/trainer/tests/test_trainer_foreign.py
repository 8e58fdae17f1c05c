"""Models of any flavour, and servers of somebody else, become versions that are judged and answer as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.xgboost
import numpy as np
import pytest
import xgboost
from fastapi import FastAPI, HTTPException, Request
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.probe import replay
from modelyard_bundle.runtimes.base import Runtime
from modelyard_common.errors import Invalid
from modelyard_common.testing import running
from modelyard_contracts.registry_v1 import VersionView
from modelyard_trainer.bring import bring
from modelyard_trainer.tracker import MlflowTracker
from test_trainer_bring import applied
from trainer_yard import Yard, stream

# What MLflow says of its own interfaces when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
FRAME = stream(400)


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> tuple[xgboost.XGBClassifier, Path]:
    """Give a boosted model as MLflow saves it: native bytes and no pickle."""
    fitted = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(FRAME[["c", "a", "b"]], FRAME["y"])
    folder = tmp_path_factory.mktemp("boosted") / "model"
    signature = mlflow.models.infer_signature(FRAME[["c", "a", "b"]], fitted.predict(FRAME[["c", "a", "b"]]))
    mlflow.xgboost.save_model(fitted, folder, signature=signature, model_format="ubj", pip_requirements=["xgboost"])
    return fitted, folder


def brought(yard: Yard, name: str, path: Path, **options: Any) -> VersionView:
    sample = yard.root / f"{name}.parquet"
    FRAME[200:].to_parquet(sample, index=False)
    tracker = MlflowTracker(yard.mlflow_url, run="external")
    return bring(path, model=name, data=sample, registry=yard.registry, tracker=tracker, **options)


def downloaded(yard: Yard, version: VersionView) -> tuple[Path, Runtime]:
    folder = yard.registry.download_bundle(version.model, version.digest, yard.root / f"served-{version.model}")
    return folder, load(folder, verify(folder, version.digest), code=True)


def test_a_boosted_model_is_brought_by_pyfunc_and_answers_as_it_did(
    yard: Yard, boosted: tuple[xgboost.XGBClassifier, Path]
) -> None:
    applied(yard, "boosted", FRAME)
    fitted, path = boosted

    version = brought(yard, "boosted", path, pyfunc=True)

    assert (version.state, version.manifest.runtimes) == ("champion", ("pyfunc",))
    assert {column.name for column in version.manifest.signature.features} == {"a", "b", "c"}
    folder, runtime = downloaded(yard, version)
    replay(runtime, version.manifest.signature, folder)
    rows = FRAME[:100]
    columns = {name: rows[name].to_numpy(dtype=np.float32) for name in ("a", "b", "c")}
    assert runtime.predict(columns).labels.tolist() == fitted.predict(rows[["c", "a", "b"]]).tolist()
    assert mlflow.pyfunc.load_model(str(folder)) is not None, "stock tools open a bundle"


def test_its_code_does_not_run_unless_somebody_says_so(yard: Yard, boosted: tuple[xgboost.XGBClassifier, Path]) -> None:
    applied(yard, "cautious", FRAME)

    with pytest.raises(Invalid):
        brought(yard, "cautious", boosted[1] / "model.ubj")

    assert yard.registry.versions("cautious") == []


def test_a_folder_without_an_mlmodel_is_no_model(yard: Yard, tmp_path: Path) -> None:
    applied(yard, "empty", FRAME)

    with pytest.raises(Invalid, match="there is no MLmodel in it"):
        brought(yard, "empty", tmp_path, pyfunc=True)


@pytest.fixture
def server() -> Iterator[str]:
    app = FastAPI()

    @app.post("/invocations")
    async def answer(request: Request) -> dict[str, Any]:
        if request.headers.get("authorization") != "Bearer known":
            raise HTTPException(401)
        split = (await request.json())["dataframe_split"]
        place = split["columns"].index("a")
        return {"predictions": [0.9 if row[place] > 0 else 0.1 for row in split["data"]]}

    with running(app) as url:
        yield url


def test_a_server_is_brought_with_its_answers_and_without_any_bytes_of_a_model(
    yard: Yard, server: str, tmp_path: Path
) -> None:
    applied(yard, "elsewhere", FRAME, gate=[])
    path = tmp_path / "server.json"
    path.write_text(json.dumps({"url": server, "protocol": "mlflow-scoring", "answers": "positive"}))
    (tmp_path / "token").write_text("known")

    with pytest.raises(Invalid, match="RemoteFailed"):
        brought(yard, "elsewhere", path)
    version = brought(yard, "elsewhere", path, server_token_file=tmp_path / "token")

    assert version.manifest.runtimes == ("remote",)
    assert version.manifest.remote is not None and version.manifest.remote.url == server
    assert {file.path for file in version.manifest.files} == {"probe.json", "baseline.json", "metrics.json"}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"url": "file:///etc/passwd", "protocol": "mlflow-scoring", "answers": "positive"}, "url"),
        ({"url": "http://h:1", "protocol": "carrier-pigeon", "answers": "positive"}, "protocol"),
        ({"url": "http://h:1", "protocol": "mlflow-scoring"}, "answers"),
    ],
)
def test_a_server_that_is_described_wrongly_is_refused_with_the_field(
    yard: Yard, tmp_path: Path, told: dict[str, str], why: str
) -> None:
    applied(yard, "wrongly", FRAME)
    path = tmp_path / "server.json"
    path.write_text(json.dumps(told))

    with pytest.raises(Invalid, match=rf"server\.json: {why}"):
        brought(yard, "wrongly", path)
