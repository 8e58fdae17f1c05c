"""Against scripting: the break is found where it is, and a stream without one is left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.acceptance.demo_runs import BREAK_ROW, ROOT, assert_the_loop_closed, assert_victoria_is_named, run_demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(660)]
DELETED_ROWS = 3_000


def test_with_earlier_rows_deleted_the_break_is_found_at_its_new_row(tmp_path: Path) -> None:
    data, source = tmp_path / "data", ROOT / "examples/electricity/data"
    data.mkdir()
    subprocess.run([sys.executable, ROOT / "examples/electricity/fetch.py"], check=True, timeout=300)
    shutil.copy(source / "history.parquet", data)
    pq.write_table(pq.read_table(source / "stream.parquet").slice(DELETED_ROWS), data / "stream.parquet")

    demo = run_demo("electricity", tmp_path / "home", "--data", str(data), "--limit", "6000", timeout_s=600)

    assert_victoria_is_named(demo, BREAK_ROW - DELETED_ROWS)
    assert_the_loop_closed(demo)


def test_a_stream_without_drift_commands_no_retraining(tmp_path: Path) -> None:
    demo = run_demo("sea", tmp_path, timeout_s=600)

    assert demo.result["failed_requests"] == 0
    assert demo.result["requests"] > 20_000
    assert [run["trigger"] for run in demo.result["runs"]] == ["spec"]
    assert {row["version"] for row in demo.answers} == {demo.result["versions"][0]["digest"]}
