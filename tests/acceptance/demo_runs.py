"""Runs `modelyard demo` as a person would, and judges what its last line says."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_common.testing import free_port_base

ROOT = Path(__file__).parents[2]
VICTORIA = {"vic_price", "vic_demand", "transfer"}
HISTORY_ROWS = 12_000
BREAK_ROW = 17_424
WINDOW_ROWS = 500


@dataclass(frozen=True)
class Demo:
    """A demo that ended."""

    result: dict[str, Any]
    story: str
    answers: list[dict[str, str]]


def run_demo(example: str, home: Path, *options: str, timeout_s: float, **environment: str) -> Demo:
    """Run a finite demo on a platform of its own."""
    command = [
        *(sys.executable, "-m", "modelyard_cli.main", "--data-dir", str(home)),
        *("--port-base", str(free_port_base()), "demo", example, "--exit", "--json", *options),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with (home / f"demo-{example}" / "demo" / "answers.csv").open(newline="", encoding="utf-8") as handle:
        answers = list(csv.DictReader(handle))
    return Demo(json.loads(done.stdout.splitlines()[-1]), done.stderr, answers)


def assert_the_loop_closed(demo: Demo) -> None:
    """Everything between a change in the world and another model in production happened by itself."""
    result = demo.result
    assert result["failed_requests"] == 0, Counter(row["failure"] for row in demo.answers)
    commanded = [run for run in result["runs"] if run["trigger"] in ("drift", "performance")]
    assert commanded, f"no retraining was commanded: {result['episodes']}"
    assert {run["state"] for run in commanded} <= {"succeeded"}
    learned = [version for version in result["versions"] if version["version"] in {run["version"] for run in commanded}]
    assert all(version["verdict"] is not None for version in learned), "a version was not judged"
    steps = [step for version in learned for rollout in version["rollout"] for step in rollout["steps"]]
    assert any(step["outcome"] == "passed" and step["candidate"] for step in steps), "nothing was rolled out"
    served = {row["version"] for row in demo.answers}
    assert len(served) > 1, "no other version than the first ever answered"


def assert_victoria_is_named(demo: Demo, break_row: int) -> None:
    """The three features that come alive are in an episode that opens within one window after the break."""
    named = [
        episode
        for episode in demo.result["episodes"]
        if set(episode["features"]) >= VICTORIA and break_row <= episode["row"] <= break_row + WINDOW_ROWS
    ]
    assert named, demo.result["episodes"]
    early = [e for e in demo.result["episodes"] if e["row"] < break_row and VICTORIA & set(e["features"])]
    assert early == [], "they were constant until then"


def accuracy(answers: list[dict[str, str]], column: str) -> float:
    """Return the share of rows that a column of the record answers rightly."""
    return sum(row[column] == row["truth"] for row in answers) / len(answers)
