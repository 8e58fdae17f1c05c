"""Counts that outlive their process, and the exposition of several processes as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.merged_metrics import Counts, Family, add_counts, counts_of, own_families, render_merged
from modelyard_common.shared_metrics import make_area, read_area
from prometheus_client.parser import text_string_to_metric_families

PROGRAM = """
import gc, sys
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
asked = Counter("asked_total", "Asked", ["who"])
took = Histogram("took_seconds", "Took", buckets=(1, 2))
Gauge("depth", "Depth").set(9)
asked.labels("a").inc(2)
asked.labels("a").inc()
asked.labels("gone").inc(5)
asked.remove("gone")
gc.collect()
asked.labels("b").inc(int(sys.argv[1]))
for seconds in (0.5, 1.5, 9):
    took.observe(seconds)
shown = [family for family in REGISTRY.collect() if family.name == "asked"][0]
print({sample.labels["who"]: sample.value for sample in shown.samples if sample.name == "asked_total"}, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def counting(tmp_path: Path) -> Any:
    (tmp_path / "counting_program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def count_and_be_killed(area: int, number: int) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard_common.shared_run", str(area), "counting_program", str(number)],
            pass_fds=(area,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return said

    return count_and_be_killed


def numbers(content: bytes) -> dict[str, float]:
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


def test_what_a_killed_process_counted_is_there_and_what_it_forgot_is_not(counting: Any) -> None:
    area = make_area()
    try:
        said = counting(area, 7)
        found = {(one.sample, one.labels): one.number for one in read_area(area)}
    finally:
        os.close(area)

    assert said == "{'a': 3.0, 'b': 7.0}\n"
    assert found == {
        ("asked_total", (("who", "a"),)): 3,
        ("asked_total", (("who", "b"),)): 7,
        ("took_seconds_sum", ()): 11,
        ("took_seconds_bucket", (("le", "1.0"),)): 1,
        ("took_seconds_bucket", (("le", "2.0"),)): 1,
        ("took_seconds_bucket", (("le", "+Inf"),)): 1,
    }


def test_several_processes_are_shown_as_one(counting: Any) -> None:
    total: dict[str, Counts] = {}
    for number in (1, 2):
        area = make_area()
        counting(area, number)
        add_counts(total, counts_of(read_area(area), ()))
        os.close(area)

    content, media_type = render_merged(total, [], {})

    assert media_type.startswith("text/plain")
    shown = numbers(content)
    assert (shown["asked_total[('who', 'a')]"], shown["asked_total[('who', 'b')]"]) == (6, 3)
    assert [shown[f"took_seconds_bucket[('le', '{le}')]"] for le in ("1.0", "2.0", "+Inf")] == [2, 4, 6]
    assert (shown["took_seconds_count[]"], shown["took_seconds_sum[]"]) == (6, 22)


@pytest.mark.parametrize(("rule", "expected"), [("sum", 6.0), ("max", 5.0), ("min", 1.0), (None, 5.0)])
def test_a_gauge_is_seen_over_processes_as_its_rule_says(rule: Any, expected: float) -> None:
    processes = [[Family("depth", "Depth", "gauge", [("depth", (), number)])] for number in (1.0, 5.0)]

    content, _ = render_merged({}, processes, {} if rule is None else {"depth": rule})

    assert numbers(content) == {"depth[]": expected}


def test_a_counter_that_is_kept_elsewhere_is_summed_too() -> None:
    family = Family("cpu_seconds", "CPU", "counter", [("cpu_seconds_total", (), 2.5)])
    total = counts_of((), [family])
    add_counts(total, counts_of((), [family]))

    content, _ = render_merged(total, [[family], [family]], {})

    assert numbers(content) == {"cpu_seconds_total[]": 5.0}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 100)), max_size=5))
def test_the_order_in_which_processes_end_changes_no_sum(processes: list[dict[str, int]]) -> None:
    def summed(order: list[dict[str, int]]) -> dict[Any, float]:
        total: dict[str, Counts] = {}
        for process in order:
            samples = [("n_total", (("k", key),), float(number)) for key, number in process.items()]
            add_counts(total, counts_of((), [Family("n", "N", "counter", samples)]))
        return total["n"].numbers if "n" in total else {}

    assert summed(processes) == summed(processes[::-1])


def test_what_a_process_shows_beside_its_counts_is_of_gauges_and_counters() -> None:
    kinds = {family.kind for family in own_families()}

    assert kinds <= {"gauge", "counter", "info", "unknown"}
    assert any(family.name == "process_resident_memory_bytes" for family in own_families())
