"""The loop on real data, from an empty folder, as real processes: the demo of the README."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.acceptance.demo_runs import (
    BREAK_ROW,
    HISTORY_ROWS,
    ROOT,
    Demo,
    accuracy,
    assert_the_loop_closed,
    assert_victoria_is_named,
    run_demo,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(660)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The whole demo, once."""
    yield run_demo("electricity", tmp_path_factory.mktemp("electricity"), timeout_s=600)


def test_every_row_is_answered_and_the_loop_closes(demo: Demo) -> None:
    assert demo.result["requests"] == 45_312 - HISTORY_ROWS
    assert demo.result["first_prediction_s"] is not None
    assert_the_loop_closed(demo)


def test_the_break_is_named_within_one_window(demo: Demo) -> None:
    assert_victoria_is_named(demo, BREAK_ROW)


def test_drift_commands_training_once_an_episode(demo: Demo) -> None:
    """Performance below its floor commands again with each window of new labels; drift does not."""
    runs = Counter(run["episode"] for run in demo.result["runs"] if run["trigger"] == "drift")

    assert runs
    assert set(runs.values()) == {1}


def test_the_result_is_not_below_the_first_version_left_alone(demo: Demo) -> None:
    assert demo.result["accuracy_platform"] >= demo.result["accuracy_frozen"] - 0.01


@pytest.mark.parametrize(("figure", "column"), [("platform", "answer"), ("frozen", "frozen"), ("naive", "naive")])
def test_the_figures_are_those_of_the_record(demo: Demo, figure: str, column: str) -> None:
    assert demo.result[f"accuracy_{figure}"] == pytest.approx(accuracy(demo.answers, column), abs=1e-5)


def test_the_record_holds_the_truth_of_the_stream_and_one_answer_a_row(demo: Demo) -> None:
    truths = pq.read_table(ROOT / "examples/electricity/data/stream.parquet").column("up").to_pylist()

    assert [int(row["truth"]) for row in demo.answers] == truths
    assert [int(row["row"]) for row in demo.answers] == list(range(HISTORY_ROWS, HISTORY_ROWS + len(truths)))
    assert len({row["prediction_id"] for row in demo.answers}) == len(truths)


def test_the_naive_answer_is_the_label_of_a_day_before(demo: Demo) -> None:
    known = pq.read_table(ROOT / "examples/electricity/data/history.parquet").column("up").to_pylist()
    truths = [*known, *(int(row["truth"]) for row in demo.answers)]

    assert [int(row["naive"]) for row in demo.answers] == truths[HISTORY_ROWS - 48 : -48]


def test_the_label_one_row_back_would_score_what_the_readme_says(demo: Demo) -> None:
    known = pq.read_table(ROOT / "examples/electricity/data/history.parquet").column("up").to_pylist()
    truths = [known[-1], *(int(row["truth"]) for row in demo.answers)]
    score = sum(now == before for before, now in itertools.pairwise(truths)) / len(demo.answers)

    assert f"would score {score:.2f}," in (ROOT / "README.md").read_text()


def test_the_story_names_each_version_and_why(demo: Demo) -> None:
    for version in demo.result["versions"]:
        assert version["verdict"]["reason"]
        assert f"version {version['version']}" in demo.story or version["digest"][7:19] in demo.story


@pytest.mark.slow
def test_with_the_retrain_command_switched_off_the_loop_does_not_close(tmp_path: Path) -> None:
    """The checks above can fail: they do when nothing learns."""
    off = run_demo("electricity", tmp_path, "--limit", "1000", timeout_s=300, MODELYARD_DRIFT_COMMANDS="off")

    assert off.result["failed_requests"] == 0
    assert [episode["decision"] for episode in off.result["episodes"] if episode["severity"] == "high"].count("off")
    with pytest.raises(AssertionError, match="no retraining was commanded"):
        assert_the_loop_closed(off)


def test_the_last_line_is_one_json_object_of_the_named_figures(demo: Demo) -> None:
    expected = """requests failed_requests held_s first_prediction_s episodes runs versions champion accuracy_platform
        accuracy_frozen accuracy_naive p50_ms p99_ms"""

    assert set(demo.result) == set(expected.split())
    assert json.loads(json.dumps(demo.result)) == demo.result
