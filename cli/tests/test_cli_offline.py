"""`modelyard predict` into a file, against a real inference server: formats, order, shards, errors, retries, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_stage import COMMAND, wait_until
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from modelyard_cli.offline.shards import Shard
from modelyard_common.testing import running
from offline_stage import MODEL, Yard, a_yard, read, rows, write

ANSWERS = ["prediction", "probability_0", "probability_1", "prediction_id", "model_version"]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with a_yard(tmp_path_factory.mktemp("yard")) as made:
        yield made


def asked_one_by_one(yard: Yard, table: pa.Table) -> list[Any]:
    """Return what the server says of rows by another road: JSON over V1."""
    instances = table.select(["load", "price", "day"]).to_pylist()
    response = httpx.post(f"{yard.url}/v1/models/{MODEL}:predict", json={"instances": instances}, trust_env=False)
    return list(response.raise_for_status().json()["predictions"])


@pytest.mark.parametrize("target", ["out.parquet", "out.arrow", "out.csv"])
@pytest.mark.parametrize("source", ["in.parquet", "in.arrow", "in.ipc", "in.csv"])
def test_every_format_gives_the_same_answers_in_order_with_what_is_kept(
    yard: Yard, tmp_path: Path, source: str, target: str
) -> None:
    table = rows(500)
    given = write(table, tmp_path / source)

    said = yard("predict", MODEL, "-f", given, "-o", tmp_path / target, "--keep", "id,day", "--batch-rows", 64).ok()

    found = read(tmp_path / target)
    assert found.column_names == ["id", "day", *ANSWERS]
    assert [int(value) for value in found["id"].to_pylist()] == list(range(500))
    assert found["day"].to_pylist() == table["day"].to_pylist()
    assert found["prediction"].to_pylist() == asked_one_by_one(yard, table)
    chances = zip(found["probability_0"].to_pylist(), found["probability_1"].to_pylist(), strict=True)
    assert all(a + b == pytest.approx(1, abs=1e-5) for a, b in chances)
    assert set(found["model_version"].to_pylist()) == {yard.digests[0]}
    assert len(set(found["prediction_id"].to_pylist())) == 500
    assert said.out.startswith(f"wrote {tmp_path / target}: 500 rows by version ")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target]), "nothing half-written stays"


def test_scored_rows_are_no_production_unless_it_is_said(yard: Yard, tmp_path: Path) -> None:
    given = write(rows(30), tmp_path / "in.parquet")

    yard("predict", MODEL, "-f", given, "-o", tmp_path / "quiet.parquet").ok()
    yard("predict", MODEL, "-f", given, "-o", tmp_path / "told.parquet", "--log").ok()

    told = set(read(tmp_path / "told.parquet")["prediction_id"].to_pylist())
    quiet = set(read(tmp_path / "quiet.parquet")["prediction_id"].to_pylist())
    wait_until(lambda: told <= {one for one, _ in yard.platform.drift.events}, "drift has what was logged")
    assert quiet.isdisjoint({one for one, _ in yard.platform.drift.events})


@pytest.mark.parametrize("source", ["in.parquet", "in.arrow", "in.csv"])
def test_shards_one_after_the_other_are_the_whole_and_a_finished_one_is_not_redone(
    yard: Yard, tmp_path: Path, source: str
) -> None:
    given = write(rows(101), tmp_path / source)
    command = ("predict", MODEL, "-f", given, "-o", tmp_path / "out.parquet", "--keep", "id")
    parts = [tmp_path / f"out-0000{index}-of-00003.parquet" for index in range(3)]

    for index in range(3):
        yard(*command, "--shard", f"{index}/3").ok()
    before = [part.stat().st_mtime_ns for part in parts]
    again = yard(*command, "--shard", "1/3").ok()
    other = yard(*command[:-1], "id,up", "--shard", "1/3")
    forced = yard(*command, "--shard", "2/3", "--force").ok()

    whole = pa.concat_tables([pq.read_table(part) for part in parts])
    assert [int(one) for one in whole["id"].to_pylist()] == list(range(101))
    assert "is there already" in again.err
    assert (other.code, "of another keep" in other.err) == (4, True)
    assert "wrote" in forced.out
    after = [part.stat().st_mtime_ns for part in parts]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, True, False]


@given(rows=st.integers(1, 10_000), total=st.integers(1, 500))
def test_shards_are_disjoint_and_even_and_give_the_whole(rows: int, total: int) -> None:
    total = min(rows, total)
    ranges = [Shard(index, total).range(rows) for index in range(total)]

    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == rows
    sizes = {last - first for first, last in ranges}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_the_pod_of_an_indexed_job_takes_its_own_shard(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write(rows(10), tmp_path / "in.parquet")
    command = ("predict", MODEL, "-f", given, "-o", tmp_path / "out.parquet", "--keep", "id", "--shards", 2)
    outside = yard(*command)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")

    yard(*command).ok()

    assert (outside.code, "no JOB_COMPLETION_INDEX" in outside.err) == (2, True)
    assert pq.read_table(tmp_path / "out-00001-of-00002.parquet")["id"].to_pylist() == [5, 6, 7, 8, 9]


def spoilt(count: int, *bad: int) -> pa.Table:
    """Return rows of which some have no load, which the model asks for."""
    table = rows(count)
    loads = [None if row in bad else value for row, value in enumerate(table["load"].to_pylist())]
    return table.set_column(table.schema.get_field_index("load"), "load", pa.array(loads, pa.float64()))


@pytest.mark.parametrize("source", ["in.parquet", "in.csv"])
def test_a_wrong_row_is_named_with_its_column_and_the_fix_and_nothing_is_written(
    yard: Yard, tmp_path: Path, source: str
) -> None:
    given = write(spoilt(100, 73), tmp_path / source)

    said = yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.csv", "--batch-rows", 10)

    assert said.code == 2
    assert f"{given}, row 74, column load: is required; mend it, or leave such rows out with --on-error" in said.err
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == [source]


def test_wrong_rows_are_left_out_or_written_apart_when_it_is_said(yard: Yard, tmp_path: Path) -> None:
    bad = (0, 7, 8, 64, 99)
    given = write(spoilt(100, *bad), tmp_path / "in.parquet")
    command = ("predict", MODEL, "-f", given, "--keep", "id", "--batch-rows", 25)

    skipped = yard(*command, "-o", tmp_path / "a.parquet", "--on-error", "skip").ok()
    apart = yard(*command, "-o", tmp_path / "b.parquet", "--on-error", "reject-file").ok()

    good = [row for row in range(100) if row not in bad]
    assert read(tmp_path / "a.parquet")["id"].to_pylist() == good
    assert read(tmp_path / "b.parquet")["id"].to_pylist() == good
    assert "5 rows were refused and left out" in skipped.err
    assert not (tmp_path / "a.parquet.rejected.jsonl").exists()
    lines = [json.loads(line) for line in (tmp_path / "b.parquet.rejected.jsonl").read_text().splitlines()]
    assert [(line["row"], line["column"], line["reason"]) for line in lines] == [
        (row + 1, "load", "is required") for row in bad
    ]
    assert [line["values"]["id"] for line in lines] == list(bad)
    assert f"see {tmp_path / 'b.parquet.rejected.jsonl'}" in apart.err.replace("\n", "")


@pytest.mark.parametrize("source", ["in.parquet", "in.csv"])
def test_a_column_that_is_missing_is_no_fault_of_each_row(yard: Yard, tmp_path: Path, source: str) -> None:
    given = write(rows(50).drop_columns("load"), tmp_path / source)

    said = yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.csv", "--on-error", "skip")

    assert said.code == 2
    assert f"{given} has no column 'load', which power asks for" in said.err.replace("\n", "")


def test_an_output_of_another_input_is_no_finished_shard(yard: Yard, tmp_path: Path) -> None:
    command = ("predict", MODEL, "-f", tmp_path / "in.csv", "-o", tmp_path / "out.arrow", "--shard", "0/2")
    write(rows(10), tmp_path / "in.csv")
    yard(*command).ok()
    write(rows(12), tmp_path / "in.csv")

    said = yard(*command)

    assert (said.code, "of another input_bytes; --force replaces it" in said.err) == (4, True)


@pytest.mark.parametrize("target", ["out.parquet", "out.csv"])
@pytest.mark.parametrize(
    ("source", "same_time", "told"),
    [("in.csv", False, "input_digest"), ("in.parquet", True, "input_digest"), ("in.arrow", None, "input_modified_ns")],
    ids=["another content", "another content of the same time", "the same ends of another time"],
)
def test_an_output_of_another_input_of_the_same_size_is_no_finished_shard(
    yard: Yard, tmp_path: Path, source: str, same_time: bool | None, told: str, target: str
) -> None:
    command = ("predict", MODEL, "-f", tmp_path / source, "-o", tmp_path / target, "--shard", "0/2")
    given = write(rows(10), tmp_path / source)
    yard(*command).ok()
    done = yard(*command).ok()
    before = given.stat()
    if same_time is not None:
        content = bytearray(given.read_bytes())
        content[-1] ^= 1
        given.write_bytes(content)
    os.utime(given, ns=(0, before.st_mtime_ns + (0 if same_time else 1)))

    said = yard(*command)

    assert given.stat().st_size == before.st_size
    assert "is there already; --force does it again" in done.err.replace("\n", " ")
    assert (said.code, f"of another {told}; --force replaces it" in said.err) == (4, True)


def test_a_csv_that_says_nothing_of_its_origin_is_no_finished_shard(yard: Yard, tmp_path: Path) -> None:
    given = write(rows(10), tmp_path / "in.csv")
    command = ("predict", MODEL, "-f", given, "-o", tmp_path / "out.csv", "--shard", "0/2")
    (tmp_path / "out-00000-of-00002.csv").write_text("label\n1\n")

    said = yard(*command)
    yard(*command, "--force").ok()
    again = yard(*command).ok()

    assert (said.code, "is no output of this command; --force replaces it" in said.err.replace("\n", " ")) == (2, True)
    assert "is there already" in again.err


def test_a_few_rows_are_still_answered_on_the_spot(yard: Yard, tmp_path: Path) -> None:
    given = write(rows(3), tmp_path / "in.csv")

    shown = yard("predict", MODEL, "-f", given, "--rows", 2).ok()
    answer = yard("predict", MODEL, "-f", given, "-o", "json", "--version", "@champion").ok().json

    assert "answered by version 1" in shown.out
    assert answer["predictions"] == asked_one_by_one(yard, rows(3))
    assert [len(chances) for chances in answer["probabilities"]] == [2, 2, 2]


def test_what_is_wrong_with_the_whole_table_is_no_row_to_skip(yard: Yard, tmp_path: Path) -> None:
    lists = rows(5).set_column(1, "load", pa.array([[1.0]] * 5))
    given = write(lists, tmp_path / "in.parquet")

    said = yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.parquet", "--on-error", "skip")

    assert said.code == 2
    assert "the model refuses every row; row 1, column load: must be a number" in said.err.replace("\n", " ")


WRONG = {
    "no such file": (("-f", "gone.parquet", "-o", "out.csv"), 3, "there is no file gone.parquet"),
    "no such folder": (("-f", "{in}", "-o", "no/out.csv"), 3, "there is no folder no"),
    "neither format nor file": (("-f", "{in}", "-o", "out.txt"), 2, "neither table nor json, nor a file that ends in"),
    "unknown input": (("-f", "{in}.bak", "-o", "out.csv"), 2, "say --format"),
    "standard input": (("-o", "out.csv"), 2, "say --format, or name another file"),
    "kept and not there": (("-f", "{in}", "-o", "{out}", "--keep", "idd"), 2, "has no column 'idd'; it has id, load"),
    "not that format": (("-f", "{in}", "-o", "{out}", "--format", "arrow"), 2, "cannot be read as arrow"),
    "no shard": (("-f", "{in}", "-o", "{out}", "--shard", "3/3"), 2, "shards are counted from 0 to 2"),
    "no K/N": (("-f", "{in}", "-o", "{out}", "--shard", "first"), 2, "is not K/N, such as 0/4"),
    "more shards than rows": (("-f", "{in}", "-o", "{out}", "--shard", "0/9"), 2, "use at most 4"),
    "unknown version": (("-f", "{in}", "-o", "{out}", "--version", "7"), 3, "has no version '7' loaded; there is 1"),
    "no version": (("-f", "{in}", "-o", "{out}", "--version", "new"), 2, "neither the number of a version nor"),
    "unknown mode": (("-f", "{in}", "-o", "{out}", "--on-error", "cry"), 2, "none of fail, skip, reject-file"),
    "a file's option": (("-f", "{in}", "--shard", "0/2"), 2, "--shard: is for an output that is a file"),
    "job without shards": (("-f", "{in}", "-o", "{out}", "--job-manifest"), 2, "say --shards N, and --claim"),
}


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_done_is_said_with_the_fix(
    yard: Yard, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    source = write(rows(4), tmp_path / "in.parquet")

    said = yard("predict", MODEL, *(word.format(**{"in": source, "out": tmp_path / "out.csv"}) for word in words))

    assert (said.code, said.out) == (code, "")
    assert sentence in said.err.replace("\n", "")
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("torn.csv", b"load,day\n1\n2,3,4\n", "cannot be read as csv"),
        ("empty.csv", b"", "has no header"),
        ("header.csv", b"load,day\n", "has no rows"),
        ("doubled.csv", b"load,load\n1,2\n", "two columns named 'load'"),
        ("other.csv", b"a,b\n1,2\n", "has no feature of power; its features are load, price, day"),
        ("no.parquet", b"PAR1", "cannot be read as parquet"),
        ("no.arrow", b"ARROW1", "cannot be read as arrow"),
        ("latin.csv", b"load,day\n1,\xff\n", "cannot be read as csv"),
    ],
)
def test_files_that_are_no_tables_say_why(yard: Yard, tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)

    said = yard("predict", MODEL, "-f", tmp_path / name, "-o", tmp_path / "out.csv")

    assert (said.code, sentence in said.err) == (2, True), said.err
    assert "Traceback" not in said.err


def test_an_output_that_is_there_is_kept_unless_told(yard: Yard, tmp_path: Path) -> None:
    given = write(rows(4), tmp_path / "in.csv")
    (tmp_path / "out.csv").write_text("mine")

    refused = yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.csv")
    untouched = (tmp_path / "out.csv").read_text()
    yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.csv", "--force").ok()

    assert (refused.code, "--force replaces it" in refused.err) == (4, True)
    assert untouched == "mine"
    assert read(tmp_path / "out.csv").num_rows == 4


def test_one_version_answers_all_whatever_is_promoted_meanwhile(tmp_path: Path) -> None:
    given = write(rows(40), tmp_path / "in.parquet")
    with a_yard(tmp_path) as yard:
        yard.platform.registry.route(MODEL, yard.digests[0], yard.digests[1], weight=100)
        wait_until(
            lambda: yard("predict", MODEL, "--version", "2", stdin='{"load": 1, "day": "sun"}').code == 0, "2 serves"
        )

        yard("predict", MODEL, "-f", given, "-o", tmp_path / "champion.parquet").ok()
        yard("predict", MODEL, "-f", given, "-o", tmp_path / "two.parquet", "--version", "2").ok()
        yard("predict", MODEL, "-f", given, "-o", tmp_path / "alias.parquet", "--version", "@candidate").ok()

    versions = [set(read(tmp_path / name)["model_version"].to_pylist()) for name in ("champion.parquet", "two.parquet")]
    assert versions == [{yard.digests[0]}, {yard.digests[1]}]
    assert set(read(tmp_path / "alias.parquet")["model_version"].to_pylist()) == {yard.digests[1]}


def test_the_first_rows_are_enough_when_told(yard: Yard, tmp_path: Path) -> None:
    for name in ("in.parquet", "in.csv"):
        given = write(rows(50), tmp_path / name)
        yard("predict", MODEL, "-f", given, "-o", tmp_path / f"{name}.csv", "--rows", 7, "--batch-rows", 3).ok()
        assert read(tmp_path / f"{name}.csv").num_rows == 7


def test_a_body_that_is_too_large_is_halved(tmp_path: Path) -> None:
    given = write(rows(400), tmp_path / "in.parquet")
    with a_yard(tmp_path, max_rows=30) as yard:
        yard("predict", MODEL, "-f", given, "-o", tmp_path / "out.parquet", "--keep", "id", "--batch-rows", 400).ok()

    assert read(tmp_path / "out.parquet")["id"].to_pylist() == list(range(400))


def a_crowded_server(behind: str, statuses: list[int]) -> FastAPI:
    """Return a server that sends the first requests for rows away, and hands everything else on."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def handle(path: str, request: Request) -> Response:
        if path.endswith("invocations") and statuses:
            status = statuses.pop(0)
            return Response('{"error_code":"X","message":"no place"}', status, {"retry-after": "1"}, "application/json")
        async with httpx.AsyncClient(base_url=behind, trust_env=False) as http:
            kept = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
            answer = await http.request(request.method, f"/{path}", content=await request.body(), headers=kept)
        return Response(answer.content, answer.status_code, dict(answer.headers))

    return app


def test_requests_for_which_there_is_no_place_are_tried_again_and_in_vain_only_so_long(
    yard: Yard, tmp_path: Path
) -> None:
    given = write(rows(60), tmp_path / "in.parquet")
    statuses = [429, 503, 429]
    command = ("predict", MODEL, "-f", given, "--keep", "id", "--batch-rows", 20)
    with running(a_crowded_server(yard.url, statuses)) as url:
        crowded = Yard(yard.platform, url, yard.digests)
        crowded(*command, "-o", tmp_path / "out.parquet").ok()
        statuses.extend([503] * 1000)
        vain = crowded(*command, "-o", tmp_path / "vain.parquet", "--retry-for", 0.1)

    assert read(tmp_path / "out.parquet")["id"].to_pylist() == list(range(60))
    assert (vain.code, "no place" in vain.err) == (5, True)
    assert not (tmp_path / "vain.parquet").exists()


def command_of(yard: Yard, *words: object) -> list[str]:
    return [*COMMAND, "--inference-url", yard.url, *map(str, ("predict", MODEL, *words))]


def test_sigterm_leaves_nothing_half_written(yard: Yard, tmp_path: Path) -> None:
    given = write(rows(200_000), tmp_path / "in.csv")
    command = command_of(yard, "-f", given, "-o", tmp_path / "out.csv", "--batch-rows", 100, "--concurrency", 1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        wait_until(lambda: list(tmp_path.glob(".out.csv.*.part")), "it has begun to write")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=30)

    assert run.returncode == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


MEASURED = """
import atexit, re
from pathlib import Path
from modelyard_cli.main import main

atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
main()
"""


def peak_mb(command: list[str]) -> float:
    """Run the command as a process of its own and return the most memory that it ever had.

    The kernel's account of a child (ru_maxrss) begins with what its parent had, which is more than either.
    """
    words = command[len(COMMAND) :]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


def write_large(path: Path, megabytes: int) -> int:
    """Write a Parquet file of one row group whose notes cannot be packed; return its rows."""
    note_bytes, block = 4096, rows(1000)
    blocks = []
    for _ in range(megabytes * 1024**2 // (note_bytes * 1000)):
        random = os.urandom(note_bytes * 1000)
        notes = pa.array([random[at : at + note_bytes] for at in range(0, len(random), note_bytes)], pa.binary())
        blocks.append(block.append_column("note", notes))
    whole = pa.concat_tables(blocks)
    pq.write_table(whole, path, row_group_size=whole.num_rows)
    return int(whole.num_rows)


def test_memory_does_not_grow_with_the_file(yard: Yard, tmp_path: Path) -> None:
    """What is on its way takes its room; beyond that it is the same, though a row group is as large as the file."""
    write_large(tmp_path / "small.parquet", 48)
    count = write_large(tmp_path / "large.parquet", 320)

    small = peak_mb(command_of(yard, "-f", tmp_path / "small.parquet", "-o", tmp_path / "a.parquet", "--keep", "note"))
    large = peak_mb(command_of(yard, "-f", tmp_path / "large.parquet", "-o", tmp_path / "b.parquet", "--keep", "note"))

    assert pq.read_metadata(tmp_path / "large.parquet").num_row_groups == 1
    assert pq.read_metadata(tmp_path / "b.parquet").num_rows == count
    assert (tmp_path / "b.parquet").stat().st_size > 300 * 1024**2
    assert large < small + 48, f"{small:.0f} MB for a file of 48 MB, {large:.0f} MB for one of 320 MB"


WITHOUT_PLATFORM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import modelyard_cli.main
import modelyard_cli.offline.run
"""


def test_the_command_needs_nothing_of_the_platform_that_it_talks_to() -> None:
    names = {
        f"modelyard_{name}" for name in ("registry", "training", "trainer", "inference", "drift", "bundle", "stats")
    }
    names |= {"mlflow", "sklearn", "onnxruntime", "scipy"}

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLATFORM.format(names=names)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
