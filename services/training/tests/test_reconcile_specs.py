"""Following the registry: one run for a data and recipe, none for a paused model, none left for a deleted one."""

from __future__ import annotations

from typing import Any

import pytest
from modelyard_common.errors import Unavailable
from modelyard_contracts.training_v1 import RunReport
from modelyard_training.domain.runs import State, Trigger
from modelyard_training.usecases.submit import Submission

VERSION = "sha256:" + "e" * 64


def train(**changes: Any) -> dict[str, Any]:
    return {"recipe": {"estimator": "decision_tree"}} | changes


def test_a_model_gets_exactly_one_run_for_its_data_and_recipe(yard: Any) -> None:
    yard.models.put("m")
    for _ in range(3):
        yard.specs()
    yard.models.put("m", description="nothing that a run learns from")
    yard.specs()
    [run] = yard.runs("m")
    assert run.trigger.kind == "spec"


def test_a_changed_recipe_gets_another_run_and_the_old_one_none_again(yard: Any) -> None:
    yard.models.put("m")
    yard.specs()
    yard.models.put("m", train=train(seed=1))
    yard.specs()
    yard.models.put("m")
    yard.specs()
    assert len(yard.runs("m")) == 2


def test_two_replicas_make_one_run(yard: Any) -> None:
    yard.models.put("m")
    model = yard.models.known["m"]
    from modelyard_training.usecases.submit import spec_claim

    first = yard.submit.enqueue(model, Trigger("spec"), (spec_claim(model),))
    second = yard.restarted().submit.enqueue(model, Trigger("spec"), (spec_claim(model),))
    assert (first.run.id, first.new, second.new) == (second.run.id, True, False)


def test_a_paused_model_gets_no_run_until_it_is_resumed(yard: Any) -> None:
    yard.models.put("m", paused=True)
    yard.specs()
    assert yard.runs() == []
    yard.models.put("m")
    yard.specs()
    assert len(yard.runs()) == 1


def test_a_failed_run_is_not_made_again(yard: Any) -> None:
    yard.models.put("m")
    yard.specs()
    yard.tick()
    run = yard.runs()[0].id
    yard.report(run, RunReport(seq=0, stage="validate", progress=0.1, outcome="failed", reason="price: all missing"))
    yard.specs()
    assert [(found.state, found.reason) for found in yard.runs()] == [(State.FAILED, "price: all missing")]


def test_the_runs_of_a_deleted_model_are_cancelled(yard: Any) -> None:
    yard.models.put("m")
    yard.specs()
    yard.tick()
    waiting = yard.submit(Submission("m", Trigger("manual"))).run.id
    yard.models.delete("m")
    yard.specs()
    assert yard.state(waiting) is State.CANCELLED
    yard.tick()
    yard.tick()
    found = yard.runs("m")[0]
    assert (found.state, found.reason) == (State.CANCELLED, "its model was deleted")


def test_a_model_that_was_deleted_while_it_was_trained_is_trained_when_it_is_applied_again(yard: Any) -> None:
    yard.models.put("m")
    yard.specs()
    yard.models.delete("m")
    yard.specs()
    yard.models.put("m")
    yard.specs()
    assert [run.state for run in yard.runs("m")] == [State.CANCELLED, State.PENDING]


@pytest.mark.parametrize(("policy", "runs"), [("retain", 1), ("delete", 2)])
def test_a_revived_model_is_trained_again_only_if_its_versions_were_deleted(yard: Any, policy: str, runs: int) -> None:
    yard.models.put("m", deletionPolicy=policy)
    yard.specs()
    yard.tick()
    report = RunReport(seq=0, stage="register", progress=1.0, outcome="succeeded", version=VERSION)
    yard.report(yard.runs()[0].id, report)
    yard.models.delete("m")
    yard.specs()
    yard.models.put("m", deletionPolicy=policy)
    yard.specs()
    assert len(yard.runs("m")) == runs


def test_nothing_is_cancelled_because_the_registry_is_away_or_forgets_a_model_in_its_list(yard: Any) -> None:
    yard.models.put("m")
    yard.specs()
    yard.models.away = True
    with pytest.raises(Unavailable):
        yard.specs()
    yard.models.away = False
    yard.models.all = list
    yard.specs()
    assert [run.state for run in yard.runs()] == [State.PENDING]


def test_one_model_that_cannot_be_trained_does_not_keep_the_others_waiting(yard: Any) -> None:
    yard.labels.away = True
    yard.models.put("a", champion=VERSION)
    yard.models.put("b")
    yard.specs()
    assert [run.model for run in yard.runs()] == ["b"]
    yard.labels.away = False
    yard.specs()
    assert [run.model for run in yard.runs()] == ["b", "a"]


def test_schedules_follow_the_manifest(yard: Any) -> None:
    yard.models.put("m", train=train(when=[{"cron": "0 3 * * 1"}, {"cron": "0 4 * * *"}]))
    yard.specs()
    yard.models.put("m", train=train(when=[{"cron": "0 4 * * *"}, {"cron": "0 5 * * *"}]))
    yard.specs()
    with yard.transactions.read() as reader:
        assert [schedule.cron for schedule in reader.schedules("m")] == ["0 4 * * *", "0 5 * * *"]
    yard.models.delete("m")
    yard.specs()
    with yard.transactions.read() as reader:
        assert list(reader.schedules()) == []
