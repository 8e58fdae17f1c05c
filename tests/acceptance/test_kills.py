"""kill -9 of each service at a named stage, on a recorded slice around the break: the loop completes all the same.

One platform for all of them. What was acknowledged is there once; requests fail only while inference itself is down.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from modelyard_cli.demo.replayer import Answer
from modelyard_cli.demo.stream import find_example, load_stream
from modelyard_client import Modelyard
from modelyard_contracts.training_v1 import RunView

from tests.acceptance.demo_runs import VICTORIA
from tests.acceptance.kill_stage import Invariants, Kill, Outcome, lived_through

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(400)]
SLICE = slice(12_424, 18_424)
HISTORY_ROWS = 4_000
POLICY: dict[str, Any] = {
    "train": {
        "recipe": {"estimator": "hist_gradient_boosting", "params": {"max_iter": 20}},
        "learnFrom": {"history": True, "feedback": True, "recent": {"rows": 1500}},
        "split": {"by": "time", "test": 0.2},
        "seed": 7,
        "timeout": "5m",
        "when": [{"drift": {"atLeast": "high", "cooldown": "1d", "maxPerWeek": 7}}],
    },
    # Not choosy: what is asked here is whether versions get through, not whether they are good.
    "gate": [{"metric": "accuracy", "min": 0.3, "on": {"fresh": {"rows": 250, "minRows": 100}}}],
    "rollout": {
        "promote": "automatic",
        "steps": [{"shadow": True, "minRequests": 50}, {"weight": 50, "minRequests": 30}],
        "abortIf": [{"signal": "errorRatio", "above": 0.5}],
        "contenders": 8,
    },
}


def newest_retraining(client: Modelyard, model: str) -> RunView | None:
    return next((run for run in client.training.runs(model) if run.trigger.kind == "drift"), None)


def is_training(client: Modelyard, model: str) -> bool:
    run = newest_retraining(client, model)
    return run is not None and run.state == "running"


def is_judging(client: Modelyard, model: str) -> bool:
    run = newest_retraining(client, model)
    return run is not None and run.state == "running" and run.stage in ("evaluate", "track", "register")


def is_rolling_out(client: Modelyard, model: str) -> bool:
    rollout = client.registry.model(model).rollout
    return rollout is not None and rollout.state == "running" and rollout.kind != "first"


def is_serving_a_second_version(client: Modelyard, model: str) -> bool:
    champion = client.registry.model(model).champion
    return champion is not None and champion.number > 1


def example_around_the_break(folder: Path) -> Path:
    """Write the electricity example again: a slice of its rows, a small model, a policy in a hurry."""
    original = find_example("electricity")
    whole = load_stream(original, None, None)  # fetches the data when it is not there
    rows = pa.concat_tables([pq.read_table(whole.data / name) for name in ("history.parquet", "stream.parquet")])
    rows = rows.slice(SLICE.start, SLICE.stop - SLICE.start)
    (folder / "data").mkdir(parents=True)
    pq.write_table(rows.slice(0, HISTORY_ROWS), folder / "data/history.parquet")
    pq.write_table(rows.slice(HISTORY_ROWS), folder / "data/stream.parquet")
    manifest = yaml.safe_load((original / "model.yaml").read_text())
    manifest["spec"] |= POLICY
    manifest["spec"]["monitor"]["window"] = {"rows": 250}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def at_each_stage(answers: list[Answer]) -> list[Kill]:
    return [
        Kill("drift", "ingesting", lambda *_: len(answers) >= 200),
        Kill("training", "training", is_training),
        Kill("registry", "judging", is_judging),
        Kill("registry", "rolling out", is_rolling_out),
        Kill("inference", "serving", is_serving_a_second_version, mid_request=True),
        Kill("mlflow", "training", is_training),
    ]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The slice, lived through."""
    folder = tmp_path_factory.mktemp("kills")
    example = example_around_the_break(folder / "electricity")
    with lived_through(folder / "home", load_stream(example, example / "data", None), at_each_stage) as outcome:
        yield outcome


class TestKilledAtEachStage(Invariants):
    def test_the_loop_completes(self, outcome: Outcome) -> None:
        rollouts = outcome.client.registry.rollouts(outcome.model)
        runs = outcome.client.training.runs(outcome.model)

        assert {run.state for run in runs} == {"succeeded"}, [(run.id, run.state, run.reason) for run in runs]
        assert any(rollout.kind == "new" and rollout.state == "completed" for rollout in rollouts)
        assert {
            feature for episode in outcome.client.drift.episodes(outcome.model) for feature in episode.features
        } >= VICTORIA
