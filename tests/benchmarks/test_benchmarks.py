"""The benchmarks run from a fresh checkout, compare like with like, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def output(*command: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


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


def test_the_benchmark_of_inference_measures_all_servers_at_every_number_of_connections() -> None:
    text = output("tools/bench_inference.py", "--rounds", "1", "--seconds", "0.5")

    assert "1 connection;" in text
    assert "16 connections;" in text
    for server in ("empty ASGI echo", "Modelyard", "FastAPI + scikit-learn"):
        alone, crowded = lines(text, server)
        for _, rate, p50, p99, cpu, *ratios in (alone, crowded):
            assert float(rate) > 0
            assert 0 < float(p50) <= float(p99)
            assert float(cpu) > 0
            assert len(ratios) == 4
            assert all(float(ratio) > 0 for ratio in ratios)
