"""A registry that was put back from a backup tells nothing new under a number that was told before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import FakeClock
from modelyard_registry.adapters.store import SqlTransactions
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.declare_restored import LEAP, declare_restored
from registry_fakes import FakeEvidence, FakeMlflow, Platform, serving

TOLD_SINCE = 50
"""The last event that a watch heard of the life that was lost."""


def declare(database: Database) -> int:
    with SqlTransactions(database, lambda: None).write() as store:
        return declare_restored(Act(store, "restore", FakeClock().now()))


def test_what_is_served_stays_and_gets_a_revision_that_nobody_has_heard_of(
    any_database: Database, any_platform: Platform
) -> None:
    any_platform.apply()
    any_platform.champion()
    any_platform.apply("gone")
    any_platform.http.delete("/v1/models/gone").raise_for_status()
    before = any_platform.routing()

    announced = declare(any_database)

    after = any_platform.routing()
    ledger = any_platform.http.get("/v1/ledger").json()
    assert announced == 2
    # No request led to it, and so no trace does.
    assert after == before | {"revision": before["revision"] + LEAP, "traceparent": None}
    assert any_platform.routing("gone")["deleted"] is True
    assert ledger["intact"] is True
    told = [(entry["kind"], entry["model"], entry["actor"]) for entry in ledger["items"][-2:]]
    assert told == [("model.restored", "gone", "restore"), ("model.restored", "m", "restore")]


def test_a_watch_from_the_life_that_was_lost_hears_of_every_model(
    any_database: Database, any_platform: Platform
) -> None:
    any_platform.apply("a")
    any_platform.apply("b")
    declare(any_database)

    with any_platform.http.stream("GET", "/v1/watch", headers={"Last-Event-ID": str(TOLD_SINCE)}) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        told = [json.loads(next(lines).removeprefix("data: ")) for _ in range(4)]

    assert {event["model"]: event["routing"]["revision"] for event in told if event["kind"] == "routing"} == {
        "a": 1 + LEAP,
        "b": 1 + LEAP,
    }
    assert min(event["seq"] for event in told) > LEAP


def test_a_rollout_that_was_under_way_goes_on_from_the_new_revision(
    any_database: Database, any_platform: Platform
) -> None:
    any_platform.apply()
    better = any_platform.better(any_platform.champion())

    declare(any_database)
    any_platform.roll_out()

    assert any_platform.model()["champion"]["digest"] == better.digest
    assert min(any_platform.evidence.asked) > LEAP


def test_the_command_declares_the_database_that_the_environment_names(
    any_database_url: str, any_database: Database, tmp_path: Path
) -> None:
    upgrade(any_database, "modelyard_registry")
    with serving(any_database, tmp_path, FakeMlflow(), FakeEvidence()) as platform:
        platform.apply()
        told = {"MODELYARD_REGISTRY_DATABASE_URL": any_database_url, "MODELYARD_REGISTRY_AUTH": "token"}
        command = [sys.executable, "-P", "-m", "modelyard_registry.restored"]
        done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=60, check=False)

        assert done.returncode == 0, done.stderr
        assert platform.routing()["revision"] == 1 + LEAP
