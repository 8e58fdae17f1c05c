"""What a job leaves behind for a control plane that was away: a whole report in a file, a short one for a kubelet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from modelyard_client import TrainingClient
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunReport, RunTrigger, RunView
from modelyard_trainer.context import Reporter
from modelyard_trainer.errors import Cancelled

VERSION = "sha256:" + "a" * 64
DOCUMENTS = Path(__file__).parents[3] / "libs/contracts/tests/documents/evaluation_v1.json"


def refuse(request: httpx.Request) -> httpx.Response:
    return httpx.Response(409, json={"title": "Conflict", "status": 409, "detail": "the run is over"})


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    client = TrainingClient("http://training", transport=httpx.MockTransport(refuse))
    return Reporter(client, "run-1", tmp_path / "exit.json", termination_log=tmp_path / "termination-log")


def left(path: Path) -> RunReport:
    return RunReport.model_validate_json(path.read_text())


def test_a_failure_is_left_behind_for_the_kubelet_too(reporter: Reporter, tmp_path: Path) -> None:
    reporter.failed("no rows")

    assert left(tmp_path / "termination-log") == left(tmp_path / "exit.json")
    assert left(tmp_path / "termination-log").reason == "no rows"


def test_a_success_with_a_large_evaluation_fits_into_4096_bytes_and_keeps_the_version(
    reporter: Reporter, tmp_path: Path
) -> None:
    evaluation = Evaluation.model_validate(json.loads(DOCUMENTS.read_text())["Evaluation"][0])
    large = evaluation.model_copy(update={"scores": evaluation.scores * 100})

    reporter.succeeded(version=VERSION, tracker_run="ml", metrics={"accuracy": 0.9}, evaluation=large)

    assert (tmp_path / "termination-log").stat().st_size <= 4096
    short, whole = left(tmp_path / "termination-log"), left(tmp_path / "exit.json")
    assert (short.outcome, short.version, short.mlflow_run_id) == ("succeeded", VERSION, "ml")
    assert whole.evaluation == large


def test_a_long_reason_is_cut_and_still_a_report(reporter: Reporter, tmp_path: Path) -> None:
    reporter.failed("é" * 10_000)

    assert (tmp_path / "termination-log").stat().st_size <= 4096
    assert left(tmp_path / "termination-log").outcome == "failed"


def told(state: str) -> Reporter:
    """Return the reporter of a run in a state, which takes no report."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return refuse(request)
        view = RunView(
            id="run-1",
            model="power",
            state=state,  # type: ignore[arg-type]  # of a test's choosing
            trigger=RunTrigger(kind="spec"),
            training_digest=VERSION,
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
        return httpx.Response(200, content=view.model_dump_json())

    return Reporter(TrainingClient("http://training", transport=httpx.MockTransport(answer)), "run-1", Path("unused"))


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_a_job_whose_run_is_over_goes_no_further(state: str) -> None:
    with pytest.raises(Cancelled):
        told(state).stage("register", 0.9)


@pytest.mark.parametrize("state", ["pending", "starting"])
def test_a_job_that_was_quicker_than_its_launch_goes_on(state: str) -> None:
    reporter = told(state)

    reporter.stage("load", 0.05)

    reporter.close()
