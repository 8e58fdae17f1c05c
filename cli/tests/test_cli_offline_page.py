"""docs/offline-scoring.md: its commands run one after the other, and write what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from cli_stage import ROOT
from offline_stage import MODEL, a_yard, read, rows, write

PAGE = (ROOT / "docs" / "offline-scoring.md").read_text()
COMMANDS = [
    shlex.split(line.partition("|")[0])[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in.parquet", "in.csv", "in.arrow"):
        write(rows(50), Path(name))

    with a_yard(tmp_path / "yard") as yard:
        said = [yard(*words).ok() for words in COMMANDS]

    assert [words[:2] for words in COMMANDS] == [["predict", MODEL]] * 6
    for name in ("out.parquet", "out.csv", "out.arrow"):
        found = read(Path(name))
        assert found.num_rows == 50
        assert {"prediction", "prediction_id", "model_version"} <= set(found.column_names)
    assert [pq.read_metadata(f"out-0000{index}-of-00002.parquet").num_rows for index in (0, 1)] == [25, 25]
    job = yaml.safe_load(said[-1].out)
    assert (job["kind"], job["spec"]["completions"]) == ("Job", 8)
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--version={yard.digests[0]}" in arguments
    assert "--job-manifest" not in arguments


def test_the_printed_job_is_a_command_that_the_image_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write(rows(20), tmp_path / "in.parquet")
    command = ("predict", MODEL, "-f", given, "-o", tmp_path / "out.parquet", "--keep", "id", "--rows", 18)
    with a_yard(tmp_path / "yard") as yard:
        printed = yard(*command, "--shards", 3, "--claim", "files", "--on-error", "skip", "--job-manifest").ok()
        arguments = yaml.safe_load(printed.out)["spec"]["template"]["spec"]["containers"][0]["args"]
        for index in range(3):
            monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
            yard(*arguments).ok()

    parts = [pq.read_table(path)["id"].to_pylist() for path in sorted(tmp_path.glob("out-*-of-00003.parquet"))]
    assert [one for part in parts for one in part] == list(range(18))
