"""What every process of the platform writes, from its start to its end, is ECS: each line, each field, each type.

All services run as processes of their own with tokens, are asked what they can and what they cannot answer, and are
stopped; a training job fails, and a service is given wrong settings. Nothing of what was sent is in any line.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_common.auth.tokens import hash_token
from modelyard_common.testing import free_port_base, running
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of

from tests.telemetry.ecs import FIELDS, OURS, conflicts, misfits

SERVICES = ("registry", "training", "drift", "inference", "operator")
TOKEN, GUESSED, PASSWORD = "token-of-the-caller", "token-that-was-guessed", "password-of-the-database"
MARK = "row-data-0451"
"""In every body, query and path segment that a caller can fill."""
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {
    "authorization": f"Bearer {TOKEN}",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-00",
    "x-request-id": "request-17",
    "cookie": f"session={MARK}",
}
BROKEN = {
    "registry": ("PUT", "/v1/models/m"),
    "training": ("POST", "/v1/runs"),
    "drift": ("POST", "/v1/models/m/labels"),
    "inference": ("POST", "/v2/models/m/infer"),
    "operator": ("POST", "/v1/nothing"),
}
JOB = {
    "run": "run-1",
    "model": "m",
    "spec": {
        "task": "regression",
        "data": {"source": {"uri": f"dataset://sha256:{'a' * 64}"}, "target": "y"},
        "train": {"recipe": {"estimator": "ridge"}},
    },
    "training_digest": f"sha256:{'b' * 64}",
    "trigger": {"kind": "manual"},
    "timeout_s": 60,
    "environment": "staging",
    "traceparent": HEADERS["traceparent"],
}


@dataclass(frozen=True)
class Told:
    """All lines of all processes."""

    lines: Mapping[str, list[dict[str, Any]]]
    text: str

    def of(self, process: str, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines[process] if line["message"] == message]

    @property
    def all(self) -> list[dict[str, Any]]:
        return [line for lines in self.lines.values() for line in lines]


def environment(service: str, **settings: object) -> dict[str, str]:
    told = {f"MODELYARD_{service.upper()}_{name}": str(value) for name, value in settings.items()}
    return {"PATH": os.environ["PATH"], **told}


def wait_for(what: str, check: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/startup", timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def ask(service: str, url: str) -> None:
    """Ask what is answered, refused, unknown, malformed, and not allowed."""
    method, path = BROKEN[service]
    with httpx.Client(base_url=url, trust_env=False, timeout=20, headers=HEADERS) as http:
        http.get("/health/ready")
        http.get("/metrics")
        http.get(f"/v1/nothing?q={MARK}")
        http.request(method, path, json={MARK: {"age": MARK}, "inputs": MARK})
        http.request(method, path, content=b"{" + MARK.encode(), headers={"content-type": "application/json"})
        http.request(method, path, json={}, headers={"authorization": f"Bearer {GUESSED}"})
        http.request("PROPFIND", path, content=MARK.encode())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    home = tmp_path_factory.mktemp("logs")
    (home / "tokens").write_text(f"caller admin {hash_token(TOKEN)}\n")
    (home / "token").write_text(f"{TOKEN}\n")
    names = (*SERVICES, "mlflow")
    ports = dict(zip(names, itertools.count(free_port_base(len(names))), strict=False))
    urls = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with ExitStack() as stack:
        cluster = kubeconfig_of(home, stack.enter_context(running(ApiServer().app)))
        processes = {}
        for service in SERVICES:
            settings = urls | {
                "PORT": ports[service],
                "AUTH": "token",
                "TOKENS_FILE": home / "tokens",
                "TOKEN_FILE": home / "token",
                "DATA_DIR": home / service,
                "LOG_LEVEL": "debug",
                "ENVIRONMENT": "staging",
                "DRAIN_S": 0.1,
                **({"KUBECONFIG": cluster} if service == "operator" else {}),
                **({"GRPC_PORT": 0} if service == "inference" else {}),
            }
            processes[service] = started(home, service, environment(service, **settings))
            stack.callback(processes[service].kill)
        for service in SERVICES:
            url = f"http://127.0.0.1:{ports[service]}"
            wait_for(f"{service} answers", lambda url=url: answers(url))  # type: ignore[misc]
            ask(service, url)
        fail_a_job(home, urls)
        fail_to_start(home)
        for service in reversed(SERVICES):
            processes[service].send_signal(signal.SIGTERM)
        assert {service: process.wait(60) for service, process in processes.items()} == dict.fromkeys(SERVICES, 0)
    texts = {path.stem: path.read_text() for path in home.glob("*.out")}
    yield Told(
        {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()},
        "".join(texts.values()),
    )


def started(home: Path, name: str, variables: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    module = name if name != "broken" else "registry"
    with (home / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", f"modelyard_{module}.main", *arguments], env=variables, stdout=out, stderr=out
        )


def fail_a_job(home: Path, urls: Mapping[str, str]) -> None:
    (home / "work").mkdir()
    where = {
        name.lower(): url
        for name, url in urls.items()
        if name in ("TRAINING_URL", "REGISTRY_URL", "DRIFT_URL", "MLFLOW_URL")
    }
    job = home / "job.json"
    job.write_text(json.dumps(JOB | where | {"work_dir": str(home / "work"), "token_file": str(home / "token")}))
    process = started(home, "trainer", {"PATH": os.environ["PATH"], "HOME": str(home)}, str(job))
    assert process.wait(90) == 1


def fail_to_start(home: Path) -> None:
    wrong = environment("registry", DATABASE_URL=f"postgresql://u:{PASSWORD}@db/x", HOST="0.0.0.0", TOKEN_FILE=home)
    assert started(home, "broken", wrong).wait(60) == 1


def test_the_schema_is_elastics_own_and_refuses_what_is_not_in_it() -> None:
    assert len(FIELDS) > 2000
    line = {
        "@timestamp": "2026-01-01T00:00:00Z",
        "event.duration": 1.5,
        "http": {"request": {"verb": "GET"}},
        "level": "info",
    }

    assert misfits(line) == ["event.duration is a long, not 1.5", "http.request.verb is no field", "level is no field"]
    assert misfits({"process.args": ["a"], "modelyard": {"anything": object()}}) == []


@pytest.mark.parametrize("process", [*SERVICES, "trainer", "broken"])
def test_every_line_fits_the_schema(told: Told, process: str) -> None:
    lines = told.lines[process]

    assert lines
    assert [wrong for line in lines for wrong in misfits(line)] == []
    service = "registry" if process == "broken" else process
    for line in lines:
        assert {"@timestamp", "log.level", "message", "ecs.version", "log.logger", "process.pid"} <= line.keys()
        assert (line["service.name"], line["service.version"]) == (service, "0.1.0")
        assert line["log.level"] in {"debug", "info", "warning", "error", "critical"}
    if process != "broken":  # which could not read where it belongs
        assert {line["service.environment"] for line in lines} == {"staging"}


def test_our_own_fields_have_one_type_each_in_all_processes(told: Told) -> None:
    assert conflicts(told.all) == {}
    assert conflicts([{OURS: {"a": {"b": 1}}}, {OURS: {"a": {"b": "x"}}}]) == {"modelyard.a.b": {"number", "str"}}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_tells_its_life_and_its_requests(told: Told, service: str) -> None:
    for message in ("service.listening", "service.started", "service.draining", "service.stopped"):
        assert told.of(service, message), message
    asked = [line for line in told.of(service, "request.answered") if line.get("http.request.id") == "request-17"]
    refused = [line for line in asked if line["http.response.status_code"] >= 400]

    assert {line["log.level"] for line in refused} == {"info"}
    assert {401, 404} <= {line["http.response.status_code"] for line in refused}
    for line in asked:
        assert line["trace.id"] == TRACE and len(line["span.id"]) == 16
        assert line["event.action"] == "request.answered" and line["event.duration"] > 0
        assert line["url.path"].startswith("/") and "?" not in line["url.path"]
    assert "PROPFIND" in {line["http.request.method"] for line in refused}


def test_a_failed_job_says_why_in_the_trace_of_its_run(told: Told) -> None:
    [failed] = told.of("trainer", "run.failed")

    assert failed["error.type"] and failed["error.message"] and "Traceback" in failed["error.stack_trace"]
    assert failed["trace.id"] == TRACE


def test_wrong_settings_are_a_line_too(told: Told) -> None:
    [crashed] = told.of("broken", "process.crashed")

    assert crashed["log.level"] == "error"
    assert "set auth=token and tokens_file" in crashed["error.message"]


@pytest.mark.parametrize(
    "secret", [TOKEN, GUESSED, PASSWORD, MARK, hash_token(TOKEN)], ids=["token", "guess", "password", "body", "hash"]
)
def test_nothing_that_was_sent_is_in_a_line(told: Told, secret: str) -> None:
    assert secret not in told.text
