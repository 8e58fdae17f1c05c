"""``python -m modelyard_<service>.migrate``: what a deployment runs before new pods start, as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import is_current

SERVICES = ("registry", "training", "drift")


def run(module: str, told: dict[str, str]) -> subprocess.CompletedProcess[str]:
    passed_on = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-P", "-m", module]
    return subprocess.run(command, check=False, env=passed_on | told, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("service", SERVICES)
def test_the_entry_migrates_the_database_that_the_environment_names(service: str, any_database_url: str) -> None:
    prefix = f"MODELYARD_{service.upper()}_"
    # As in the image, where a service listens to everybody who has a token.
    told = {f"{prefix}DATABASE_URL": any_database_url, f"{prefix}HOST": "0.0.0.0", f"{prefix}AUTH": "token"}

    done = [run(f"modelyard_{service}.migrate", told) for _ in range(2)]

    assert [process.returncode for process in done] == [0, 0], done[0].stderr
    database = Database(any_database_url)
    assert is_current(database, f"modelyard_{service}")
    database.close()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_told_to_require_its_schema_says_what_to_run(service: str, tmp_path: Path) -> None:
    prefix = f"MODELYARD_{service.upper()}_"

    process = run(
        f"modelyard_{service}.main", {f"{prefix}MIGRATIONS": "require", f"{prefix}DATA_DIR": str(tmp_path / "data")}
    )

    assert process.returncode != 0
    assert f"python -m modelyard_{service}.migrate" in process.stderr


def test_a_database_that_is_away_fails_the_entry_with_its_reason() -> None:
    process = run(
        "modelyard_registry.migrate", {"MODELYARD_REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    )

    assert process.returncode != 0
    assert "connection" in process.stderr.lower()
