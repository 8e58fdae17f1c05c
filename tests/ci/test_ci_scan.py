"""`make scan` looks every locked package up, by a database that speaks OSV's protocol, and fails for what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.ci.pipelines import ROOT
from tests.servers import Quiet, listening


@dataclass
class Database:
    """What is known to be vulnerable, and what was asked for."""

    known: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    url: str = ""


@contextmanager
def osv(known: dict[str, str]) -> Iterator[Database]:
    database = Database(known)

    class Handler(Quiet):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = query["package"]["name"]
            database.asked[name] = query["version"]
            answer = {"vulns": [vulnerability(name, database.known[name])]} if name in database.known else {}
            self.reply(200, json.dumps(answer).encode())

    with listening(Handler) as url:
        database.url = f"{url}/v1/query"
        yield database


def vulnerability(name: str, fixed: str) -> dict[str, object]:
    events = [{"introduced": "0"}, {"fixed": fixed}]
    package = {"name": name, "ecosystem": "PyPI"}
    return {
        "id": "PYSEC-2026-1",
        "summary": "It opens the door",
        "modified": "2026-01-01T00:00:00Z",
        "published": "2026-01-01T00:00:00Z",
        "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    }


def scan(url: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", "-o", ".venv/.ready", "scan", f"OSV_URL={url}"]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_every_package_that_a_service_gets_is_looked_up_and_nothing_is_found() -> None:
    with osv({}) as database:
        done = scan(database.url)

    assert done.returncode == 0, done.stdout + done.stderr
    # A package may be there twice, for different versions of Python.
    locked = {(one["name"], one["version"]) for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert len(database.asked) > 100
    assert set(database.asked.items()) <= locked
    assert {"fastapi", "numpy", "onnxruntime", "mlflow", "kubernetes", "psycopg"} <= set(database.asked)


def test_a_known_vulnerability_fails_the_scan_by_name_and_tells_the_version_that_mends_it() -> None:
    with osv({"starlette": "99.0.0"}) as database:
        done = scan(database.url)

    assert done.returncode != 0
    [line] = [line for line in done.stdout.splitlines() if line.startswith("starlette")]
    assert {"PYSEC-2026-1", "99.0.0"} <= set(line.split())


def test_a_database_that_is_away_fails_the_scan() -> None:
    done = scan("http://127.0.0.1:9/v1/query")

    assert done.returncode != 0
    assert "127.0.0.1" in done.stderr


@pytest.fixture(autouse=True, scope="module")
def requirements() -> Iterator[None]:
    yield
    (ROOT / "build/requirements.txt").unlink(missing_ok=True)
