"""The API over real HTTP, with the client that everybody uses: statuses, bodies, bounds, roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from modelyard_client import TrainingClient
from modelyard_common.auth.tokens import hash_token
from modelyard_common.db import Database
from modelyard_common.errors import Conflict, Invalid, NotFound, TooLarge
from modelyard_common.testing import running
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.training_v1 import RunReport, RunTrigger, SubmitRunRequest
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build

VERSION = "sha256:" + "e" * 64
UNKNOWN = "sha256:" + "0" * 64
PARQUET = "application/vnd.apache.parquet"
TABLE = pa.table({"price": [1.5, 2.5, None], "up": [1, 0, 1]})


@dataclass
class Desk:
    """The running service and what is behind it."""

    url: str
    client: TrainingClient
    http: httpx.Client
    app: FastAPI
    yard: Any

    def submit(self, key: str | None = None, **changes: Any) -> Any:
        return self.client.submit(SubmitRunRequest(model="m", **changes), idempotency_key=key)


@pytest.fixture
def settings(tmp_path: Path) -> TrainingSettings:
    return TrainingSettings(data_dir=tmp_path, max_body_bytes=200_000, max_json_bytes=10_000)


@pytest.fixture
def desk(settings: TrainingSettings, database: Database, yard: Any) -> Iterator[Desk]:
    app = build(
        settings,
        database,
        clock=yard.clock,
        launcher=yard.launcher,
        models=yard.models,
        labels=yard.labels,
        background=False,
    )
    yard.models.put("m")
    with running(app) as url, TrainingClient(url) as client, httpx.Client(base_url=url) as http:
        yield Desk(url, client, http, app, yard)


def test_a_run_is_made_once_and_answered_the_same(desk: Desk) -> None:
    body = {"model": "m", "trigger": {"kind": "manual", "reason": "to see"}}
    first = desk.http.post("/v1/runs", json=body, headers={"idempotency-key": "k"})
    second = desk.http.post("/v1/runs", json=body, headers={"idempotency-key": "k"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    other = desk.http.post("/v1/runs", json={"model": "m"}, headers={"idempotency-key": "k"})
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")


def test_triggers_of_our_own_cannot_be_given(desk: Desk) -> None:
    with pytest.raises(Invalid) as refusal:
        desk.submit(trigger=RunTrigger(kind="spec"))
    assert refusal.value.errors[0].path == "trigger.kind"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(lambda yard: yard.models.known.clear(), NotFound, "there is no model 'm'", id="unknown"),
        pytest.param(lambda yard: yard.models.put("m", paused=True), Conflict, "is paused", id="paused"),
    ],
)
def test_a_model_that_cannot_be_trained(
    desk: Desk, change: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    change(desk.yard)
    with pytest.raises(error, match=message):
        desk.submit()


def test_a_manual_retrain_while_drift_is_away_is_503(desk: Desk) -> None:
    desk.yard.models.put("m", champion=VERSION)
    desk.yard.labels.away = True
    answer = desk.http.post("/v1/runs", json={"model": "m"})
    assert (answer.status_code, answer.json()["detail"]) == (503, "drift cannot be reached")
    assert "retry-after" in answer.headers


def test_a_run_from_the_start_to_its_evaluation(desk: Desk) -> None:
    run = desk.submit().id
    desk.app.state.tick()
    with pytest.raises(NotFound, match="has no evaluation"):
        desk.client.evaluation(run)
    assert desk.client.report(run, RunReport(seq=1, stage="fit", progress=0.4)).progress == 0.4
    evaluation = Evaluation(run=run, kind="test", rows=3, rows_digest=UNKNOWN, scores=())
    last = RunReport(
        seq=2,
        stage="register",
        progress=1,
        outcome="succeeded",
        version=VERSION,
        evaluation=evaluation,
        metrics={"a": 1},
    )
    view = desk.client.report(run, last)
    assert (view.state, view.version, view.metrics) == ("succeeded", VERSION, {"a": 1.0})
    assert desk.client.report(run, last) == desk.client.run(run) == view
    assert desk.client.evaluation(run) == evaluation
    with pytest.raises(Conflict, match="takes no more reports"):
        desk.client.report(run, last.model_copy(update={"seq": 3}))


def test_cancelling_over_http(desk: Desk) -> None:
    run = desk.submit().id
    assert desk.client.cancel(run).state == "cancelled"
    with pytest.raises(NotFound):
        desk.client.cancel("run-nowhere")


def test_logs_go_on_from_an_offset(desk: Desk) -> None:
    run = desk.submit().id
    desk.yard.launcher.logs[run] = "one\ntwo\n"
    answer = desk.http.get(f"/v1/runs/{run}/logs", params={"offset": 4})
    assert (answer.text, answer.headers["modelyard-next-offset"]) == ("two\n", "8")
    assert desk.client.logs(run, 8) == ""
    with pytest.raises(NotFound):
        desk.client.logs("run-nowhere")


def test_runs_are_listed_by_model_state_and_page(desk: Desk) -> None:
    desk.yard.models.put("other")
    made = [desk.submit().id for _ in range(3)]
    desk.client.submit(SubmitRunRequest(model="other"))
    desk.client.cancel(made[0])
    assert [run.id for run in desk.client.runs("m")] == sorted(made, reverse=True)
    states = desk.http.get("/v1/runs", params={"state": "cancelled"}).json()["items"]
    assert [run["id"] for run in states] == [made[0]]
    page = desk.http.get("/v1/runs", params={"limit": 3}).json()
    rest = desk.http.get("/v1/runs", params={"limit": 3, "cursor": page["next_cursor"]}).json()
    assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (3, 1, None)
    assert desk.http.get("/v1/runs", params={"state": "asleep"}).status_code == 422


def test_schedules_are_shown(desk: Desk) -> None:
    desk.yard.models.put("m", train={"recipe": {"estimator": "ridge"}, "when": [{"cron": "0 3 * * 1"}]})
    desk.app.state.specs()
    [schedule] = desk.http.get("/v1/schedules", params={"model": "m"}).json()["items"]
    assert (schedule["cron"], schedule["next_due"]) == ("0 3 * * 1", "2026-03-09T03:00:00Z")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def test_a_dataset_is_made_once_whatever_its_format(desk: Desk, parquet: Path, tmp_path: Path) -> None:
    pa_csv.write_csv(TABLE, tmp_path / "data.csv")
    first = desk.client.upload_dataset(parquet, name="prices")
    assert (first.rows, first.name, [column.type for column in first.columns]) == (3, "prices", ["number", "integer"])
    assert desk.client.upload_dataset(tmp_path / "data.csv", name="again") == first
    again = desk.http.post("/v1/datasets", content=parquet.read_bytes(), headers={"content-type": PARQUET})
    assert again.status_code == 200
    assert desk.client.dataset(first.digest) == first
    assert first in desk.client.datasets()
    got = desk.client.download_dataset(first.digest, tmp_path / "got.parquet")
    assert pq.read_table(got).to_pydict() == TABLE.to_pydict()
    assert not list((tmp_path / "datasets/uploads").iterdir())


def test_a_dataset_whose_file_was_lost_is_mended_by_uploading_it_again(
    desk: Desk, parquet: Path, tmp_path: Path
) -> None:
    made = desk.client.upload_dataset(parquet)
    [file] = (tmp_path / "datasets").glob("*/*.parquet")
    file.unlink()
    answer = desk.http.get(f"/v1/datasets/{made.digest}/content")
    assert (answer.status_code, "upload the same rows again" in answer.json()["detail"]) == (503, True)
    desk.client.upload_dataset(parquet)
    assert desk.http.get(f"/v1/datasets/{made.digest}/content").headers["etag"] == f'"{made.digest}"'


def test_a_file_that_was_left_without_its_row_is_taken_over(desk: Desk, parquet: Path, tmp_path: Path) -> None:
    """The service was killed between the rename and the commit."""
    made = desk.client.upload_dataset(parquet)
    with desk.yard.transactions._database.write() as session:
        from modelyard_training.adapters.database import DatasetRow

        session.delete(session.get(DatasetRow, made.digest))
    with pytest.raises(NotFound):
        desk.client.dataset(made.digest)
    assert desk.client.upload_dataset(parquet).digest == made.digest


@pytest.mark.parametrize(
    ("content", "media_type", "path"),
    [
        pytest.param(b"", PARQUET, "body", id="empty"),
        pytest.param(b"a,a\n1,2\n", "text/csv; charset=utf-8", "columns[1]", id="duplicate column"),
        pytest.param(b"a,b\n", "text/csv", "body", id="no rows"),
        pytest.param(b"not parquet", PARQUET, "body", id="undecodable"),
        pytest.param(b"{}", "application/json", "content-type", id="another format"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused_by_field(
    desk: Desk, content: bytes, media_type: str, path: str, tmp_path: Path
) -> None:
    answer = desk.http.post("/v1/datasets", content=content, headers={"content-type": media_type})
    assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, [path])
    assert not list((tmp_path / "datasets/uploads").iterdir())


def test_a_dataset_beyond_the_bound_is_refused_told_or_streamed(desk: Desk, tmp_path: Path) -> None:
    headers = {"content-type": "text/csv"}
    told = desk.http.post("/v1/datasets", content=b"x" * 200_001, headers=headers)
    streamed = desk.http.post("/v1/datasets", content=iter([b"x" * 100_000] * 3), headers=headers)
    assert (told.status_code, streamed.status_code) == (413, 413)
    assert not list((tmp_path / "datasets/uploads").iterdir())


def test_other_bodies_have_a_bound_of_their_own(desk: Desk) -> None:
    with pytest.raises(TooLarge):
        desk.submit(trigger=RunTrigger(kind="manual", reason="x" * 10_000))
    chunked = desk.http.post("/v1/runs", content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert (chunked.status_code, chunked.json()["detail"]) == (422, "send the body with a Content-Length")


def test_wrong_names_of_things_are_refused(desk: Desk) -> None:
    assert desk.http.get("/v1/datasets/sha256:xyz").status_code == 422
    assert desk.http.get(f"/v1/datasets/{UNKNOWN}").status_code == 404
    assert desk.http.get("/v1/runs", params={"cursor": "rubbish"}).status_code == 422
    assert desk.http.post("/v1/runs", json={"model": "m", "colour": "red"}).json()["errors"][0]["path"] == "colour"


def test_health_names_its_checks_and_a_registry_that_is_away_is_not_critical(desk: Desk) -> None:
    answer = desk.http.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {
        "database": "ok",
        "launcher": "ok",
        "registry": "the registry has not been asked yet",
    }


def test_metrics_tell_of_runs_and_datasets(desk: Desk, parquet: Path) -> None:
    desk.client.upload_dataset(parquet)
    desk.client.cancel(desk.submit().id)
    text = desk.http.get("/metrics").text
    for name in ("runs_count", "queue_depth_runs", "runs_ended_total", "dataset_rows_total"):
        assert f"modelyard_training_{name}" in text


@pytest.mark.parametrize(
    ("role", "reads", "writes"), [("client", 200, 403), ("admin", 200, 201), ("service", 200, 201)]
)
def test_roles(
    settings: TrainingSettings, database: Database, yard: Any, tmp_path: Path, role: str, reads: int, writes: int
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"somebody {role} {hash_token('secret')}\n")
    guarded = settings.model_copy(update={"auth": "token", "tokens_file": tokens})
    yard.models.put("m")
    app = build(guarded, database, launcher=yard.launcher, models=yard.models, labels=yard.labels, background=False)
    with running(app) as url, httpx.Client(base_url=url) as http:
        assert http.get("/v1/runs").status_code == 401
        headers = {"authorization": "Bearer secret"}
        assert http.get("/v1/runs", headers=headers).status_code == reads
        assert http.post("/v1/runs", json={"model": "m"}, headers=headers).status_code == writes
        upload = http.post("/v1/datasets", content=b"a\n1\n", headers={**headers, "content-type": "text/csv"})
        assert upload.status_code == writes
