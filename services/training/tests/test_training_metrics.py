"""What training's metrics say of runs and triggers, as Prometheus scrapes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelyard_common.db import Database
from modelyard_contracts.training_v1 import RunReport
from modelyard_training.adapters.metrics import run_ended
from modelyard_training.domain.runs import Trigger
from modelyard_training.settings import TrainingSettings
from modelyard_training.usecases.submit import Submission
from modelyard_training.wiring import build
from prometheus_client import REGISTRY

HOUR_S = 3600.0
SUCCESS = RunReport(
    seq=9, stage="register", progress=1.0, outcome="succeeded", version="sha256:" + "e" * 64, mlflow_run_id="ml"
)


@pytest.fixture
def show(tmp_path: Path, database: Database, yard: Any) -> Callable[[], None]:
    """Look at the tables once, as the service's task does."""
    settings = TrainingSettings(data_dir=tmp_path)
    peers = {"launcher": yard.launcher, "models": yard.models, "labels": yard.labels}
    app = build(settings, database, clock=yard.clock, background=False, **peers)
    shown: Callable[[], None] = app.state.show
    return shown


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"modelyard_training_{name}", labels)


def test_a_waiting_run_shows_how_long_it_waits(yard: Any, show: Callable[[], None]) -> None:
    show()
    before = value("queue_wait_seconds")
    yard.models.put("m")
    yard.submit(Submission("m", Trigger("manual")))
    yard.clock.advance(90)
    show()

    assert before == 0
    assert value("queue_wait_seconds") == 90
    assert value("queue_depth_runs") == 1


def test_a_model_shows_when_it_was_last_trained(yard: Any, show: Callable[[], None]) -> None:
    yard.models.put("m")
    yard.specs()
    show()
    before = value("last_success_seconds", model="m")
    yard.tick()
    yard.clock.advance(30)
    yard.report(yard.runs()[0].id, SUCCESS)
    show()

    assert before is None
    assert value("last_success_seconds", model="m") == yard.clock.now().timestamp()


def test_a_trigger_that_cannot_be_acted_on_stays_due(yard: Any, show: Callable[[], None]) -> None:
    when = [{"cron": "0 * * * *"}, {"cron": "0 3 * * 1"}]
    yard.models.put("m", train={"recipe": {"estimator": "decision_tree"}, "when": when})
    yard.specs()
    due = yard.clock.now().timestamp() + HOUR_S
    yard.models.away = True
    yard.clock.advance(2 * HOUR_S)
    yard.schedules()
    show()

    assert value("schedule_due_seconds", model="m") == due


def test_every_ending_is_counted_from_zero(yard: Any, show: Callable[[], None]) -> None:
    yard.models.put("fresh")
    yard.specs()
    show()

    assert value("runs_ended_total", model="fresh", state="failed") == 0


def test_a_run_that_ends_is_counted_with_its_duration(yard: Any) -> None:
    yard.models.put("timed")
    yard.specs()
    yard.tick()
    yard.clock.advance(45)
    yard.report(yard.runs()[0].id, SUCCESS)
    run_ended(yard.ended[0])

    labels = {"model": "timed", "state": "succeeded"}
    assert value("runs_ended_total", **labels) == 1
    assert value("run_duration_seconds_sum", **labels) == 45


def test_a_deleted_model_leaves_the_scrape(yard: Any, show: Callable[[], None]) -> None:
    when = [{"cron": "0 * * * *"}]
    yard.models.put("m", train={"recipe": {"estimator": "decision_tree"}, "when": when})
    yard.specs()
    show()
    assert value("schedule_due_seconds", model="m") is not None

    yard.models.delete("m")
    yard.specs()
    show()

    assert value("schedule_due_seconds", model="m") is None
