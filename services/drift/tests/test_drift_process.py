"""Drift as a process: killed at any moment it loses nothing that it acknowledged, and counts nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from drift_fakes import MODEL, START, FakeRegistry, FakeTraining, World, baseline_text, spec
from fastapi import FastAPI, Header, Request, Response
from modelyard_common.auth.tokens import hash_token
from modelyard_common.testing import free_port, running
from modelyard_contracts.frames import framed
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE, PredictionBlock, name_frame
from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.training_v1 import RunTrigger, RunView

DIGEST = "sha256:" + "0" * 64
BATCH = 50


@dataclass
class Peers:
    """The registry and training over HTTP, as far as drift asks them."""

    keys: list[str] = field(default_factory=list)

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            document = spec().model_dump(mode="json", by_alias=True, exclude_unset=True)
            view = ModelView(
                name=MODEL,
                generation=1,
                spec=document,
                spec_digest=DIGEST,
                training_digest=DIGEST,
                created=START,
                updated=START,
            )
            return {"items": [view.model_dump(mode="json")], "next_cursor": None}

        @app.get("/v1/models/{model}/versions/{version}/files/baseline.json")
        def baseline(model: str, version: str) -> Response:
            del model, version
            return Response(baseline_text())

        @app.post("/v1/runs")
        async def submit(request: Request, idempotency_key: str = Header()) -> dict[str, Any]:
            asked = await request.json()
            if idempotency_key not in self.keys:
                self.keys.append(idempotency_key)
            trigger = RunTrigger.model_validate(asked["trigger"])
            run = RunView(
                id=f"run-{self.keys.index(idempotency_key)}",
                model=asked["model"],
                state="pending",
                trigger=trigger,
                training_digest=DIGEST,
                created=START,
            )
            return run.model_dump(mode="json")

        return app


@contextmanager
def process(folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    environment = {f"MODELYARD_DRIFT_{name.upper()}": value for name, value in settings.items()}
    environment |= {"MODELYARD_DRIFT_PORT": str(port), "MODELYARD_DRIFT_DATA_DIR": str(folder)}
    environment |= {"MODELYARD_DRIFT_DRAIN_S": "0"}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "modelyard_drift.main"]
        started = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as http:
        try:
            until(lambda: is_live(started, http, folder))
            yield started, http
        finally:
            started.kill()
            started.wait(20)


def is_live(started: subprocess.Popen[bytes], http: httpx.Client, folder: Path) -> bool:
    assert started.poll() is None, (folder / "log").read_text()
    with suppress(httpx.TransportError):
        return http.get("/health/live").is_success
    return False


def until(happened: Callable[[], bool], *, within_s: float = 60) -> None:
    ends = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def rows(number: int) -> list[dict[str, Any]]:
    nothing: Any = None
    maker = World(nothing, FakeRegistry(), FakeTraining(), nothing, nothing, nothing, nothing, nothing)
    return maker.rows(number, heat=3.0)


def in_blocks(events: list[dict[str, Any]]) -> bytes:
    """Return the body that carries events, each a block of its own."""
    blocks = []
    for event in events:
        of_row = {
            "id": event["id"].removesuffix("/0"),
            "rows": 1,
            "event_times": [datetime.fromisoformat(event["event_time"])],
            "arrival": datetime.fromisoformat(event["arrival"]),
            "routing_key": "",
            "sampled": True,
            "names": list(event["features"]),
            "values": list(event["features"].values()),
            "predictions": [event["prediction"]],
            "scores": [event["score"]],
        }
        same = {name: event[name] for name in event.keys() & set(PredictionBlock._fields) - of_row.keys()}
        blocks.append(msgspec.msgpack.encode(PredictionBlock(**of_row, **same)))
    return name_frame("t") + framed(blocks)


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_works_counts_every_acknowledged_row_once(
    any_database_url: str, tmp_path: Path
) -> None:
    peers, events, labelled = Peers(), rows(600), 0
    as_json = cycle([True, False])  # what is sent again is sent the other way
    batches = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    with running(peers.app) as peer:
        settings = {
            "database_url": any_database_url,
            "registry_url": peer,
            "training_url": peer,
            "chunk_rows": "20",
            "refresh_s": "0.1",
        }
        for part in (batches[:5], batches[4:9], batches[8:]):  # a batch whose answer got lost is sent again
            with process(tmp_path, **settings) as (started, http):
                for batch in part:
                    sent = json.dumps({"source": "t", "events": batch}).encode(), "application/json"
                    content, media_type = sent if next(as_json) else (in_blocks(batch), BLOCKS_MEDIA_TYPE)
                    answer = http.post("/v1/events", content=content, headers={"content-type": media_type})
                    assert answer.status_code == 200, answer.text
                    labels = [{"prediction_id": e["id"], "value": e["prediction"]} for e in batch]
                    labelled += http.post(f"/v1/models/{MODEL}/labels", json={"labels": labels}).json()["accepted"]
                started.kill()  # in the midst of processing
                started.wait(20)
        with process(tmp_path, **settings) as (_, http):
            status = until_quiet(http)
            windows = http.get(f"/v1/models/{MODEL}/windows").json()["items"]
            ids = http.get(f"/v1/models/{MODEL}/predictions", params={"limit": 1000}).json()["items"]
            [episode] = http.get(f"/v1/models/{MODEL}/episodes").json()["items"]
    assert ids == [event["id"] for event in events]
    assert (status["requests"], status["labels"], labelled) == (600, 600, 600)
    assert [(w["rows"], w["first_row"]) for w in windows] == [(100, first) for first in range(500, -1, -100)]
    assert {w["performance"][0]["rows"] for w in windows} == {100}
    assert (episode["windows"], episode["decision"]["command"]) == (6, "delivered")
    assert peers.keys == [episode["decision"]["id"]]


def until_quiet(http: httpx.Client) -> dict[str, Any]:
    """Return the status once all that is in the log was processed, measured and delivered."""
    found: dict[str, Any] = {}

    def is_quiet() -> bool:
        found.update(http.get(f"/v1/models/{MODEL}/status").json())
        processed = found["processed_seq"] == found["ingest_seq"]
        return processed and found["folded_label_seq"] == found["label_seq"] and not found["pending_commands"]

    until(is_quiet)
    return found


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Drift with tokens; a call returns the status that who got."""
    tokens = tmp_path / "tokens"
    people = [("inference", "service"), ("ada", "admin"), ("bob", "client")]
    tokens.write_text("".join(f"{name} {role} {hash_token(f'secret-{name}')}\n" for name, role in people))
    with process(tmp_path, auth="token", tokens_file=str(tokens), registry_url="http://127.0.0.1:9") as (_, http):

        def call(who: str | None, method: str, path: str, **arguments: Any) -> int:
            headers = arguments.pop("headers", {}) | ({"Authorization": f"Bearer secret-{who}"} if who else {})
            return http.request(method, path, headers=headers, **arguments).status_code

        yield call


def test_roles_decide_who_may_write_the_log(guarded: Callable[..., int]) -> None:
    events = {"source": "t", "events": rows(1)}
    labels = {"labels": [{"prediction_id": "p0", "value": 1}]}
    assert guarded("bob", "POST", "/v1/events", json=events) == 403
    assert guarded("inference", "POST", "/v1/events", json=events) == 200
    blocks = {"content": in_blocks(rows(1)), "headers": {"content-type": BLOCKS_MEDIA_TYPE}}
    assert guarded("bob", "POST", "/v1/events", **blocks) == 403
    assert guarded("inference", "POST", "/v1/events", **blocks) == 200
    assert guarded("bob", "POST", f"/v1/models/{MODEL}/labels", json=labels) == 200
    for path in ("status", "windows", "episodes", "decisions", "predictions", "labelled", "comparison?revision=1"):
        assert guarded("bob", "GET", f"/v1/models/{MODEL}/{path}") == 200, path
        assert guarded(None, "GET", f"/v1/models/{MODEL}/{path}") == 401, path
    assert guarded(None, "POST", "/v1/events", json=events) == 401
    assert guarded(None, "GET", "/health/live") == 200
