"""The benchmarks run from a fresh checkout, compare like with like, and print what they promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.inference.contenders import CONTENDERS
from bench.inference.environments import PEERS
from bench.inference.names import DIALECTS
from bench.inference.record import Place, Record

ROOT = Path(__file__).parents[2]
_INSTALL_S = 300
"""What it may take to make an environment for our own server, where nothing is cached."""
needs_load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")


def output(*command: str, within_s: float = 110) -> str:
    """Return what a command prints. One that is late is told so, and ends what it has started."""
    started = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        text, errors = started.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        started.terminate()
        text, errors = started.communicate(timeout=60)
        pytest.fail(f"not done after {within_s:g} s: {errors}")
    assert started.returncode == 0, errors
    return text


def lines(text: str, start: str) -> list[list[str]]:
    """Return the cells of the lines that begin so; cells are two spaces apart."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.startswith(start)]


def test_the_benchmark_of_drift_compares_counters_with_raw_rows() -> None:
    text = output("tools/bench_drift.py", "--rows", "2000", "20000", "--rounds", "2")

    small, large = lines(text, "2000")
    assert [small[0], large[0]] == ["2000", "20000"]
    for line in (small, large):
        assert len(line) == 10
        assert all(float(cell) >= 0 for cell in line)
    assert float(large[9]) > float(small[9]) > 1, "raw rows grow and counters do not"
    assert float(large[6]) > 1, "looking at counters costs less than looking at rows"


@needs_load
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_of_inference_measures_who_answers_right_in_every_protocol(tmp_path: Path) -> None:
    options = ["--peers", "fastapi", "--models", "linear", "--rows", "1", "--connections", "64"]

    text = output(
        "tools/bench_inference.py",
        *options,
        "--rounds",
        "2",
        "--seconds",
        "0.2",
        "--results",
        str(tmp_path),
        within_s=200 + _INSTALL_S,
    )

    record = Record.read(tmp_path / "inference.json")
    assert (tmp_path / "inference.txt").read_text() == text
    assert [cell.problem for cell in record.cells if cell.problem] == []
    for dialect in DIALECTS:
        cells = record.at(Place(model="linear", dialect=dialect, rows=1, connections=64))
        assert cells.keys() == ({"echo", "modelyard", "fastapi"} if dialect == "json" else {"modelyard"})
        for cell in cells.values():
            assert len(cell.rounds) == 2
            assert cell.rate > 0
            assert 0 < cell.p50_ms <= cell.p99_ms
            assert cell.cpu_us > 0
    assert all(one.start_s and one.rss_mib and one.processes for one in record.served)
    assert record.events["modelyard, linear"] > 0, "payloads are logged while it is measured"
    [echo] = lines(text, "linear, 1 row, 64 connections: the echo")
    assert echo[-1] in {"met", "not met", "by rate only", "by CPU only"}


@needs_load
@pytest.mark.slow
@pytest.mark.timeout(800)
def test_the_ablations_undo_one_choice_each_and_still_answer_right(tmp_path: Path) -> None:
    options = ["--models", "linear", "--rows", "1", "--connections", "1", "--rounds", "1", "--seconds", "0.2"]

    options += ["--ablations", "--results", str(tmp_path)]
    text = output("tools/bench_inference.py", *options, within_s=400 + _INSTALL_S)

    record = Record.read(tmp_path / "ablations.json")
    assert [one.problem for one in record.served if one.problem] == []
    [place] = record.places()
    assert list(record.at(place)) == list(record.titles)
    assert record.events["modelyard, linear"] > 0
    assert record.events["unlogged, linear"] == 0, "what is undone is undone"
    [without_log] = lines(text, "no log of payloads")
    assert float(without_log[-1]) > 0


def test_the_packages_of_every_peer_are_pinned_exactly() -> None:
    environments = {one.environment for one in CONTENDERS if one.kind == "peer" and one.environment}

    assert {path.stem for path in PEERS.glob("*.txt")} == environments
    for name in environments:
        pins = [line for line in (PEERS / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
        assert any(pin.startswith(f"{name}==") for pin in pins)
        assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.!+-]+", pin) for pin in pins), pins


def test_a_peer_that_cannot_be_named_is_refused_with_those_that_can() -> None:
    ended = subprocess.run(
        [sys.executable, "tools/bench_inference.py", "--peers", "bentonl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "'bentonl' is not known; there is modelyard-bare, fastapi, mlflow" in ended.stderr
