"""The whole way: a manifest is applied, training starts a process, the registry promotes what it made."""

from __future__ import annotations

from datetime import timedelta

from modelyard_contracts.training_v1 import TERMINAL_STATES, RunTrigger, RunView, SubmitRunRequest
from trainer_yard import EPOCH, Yard, as_labelled, policy, stream, wait_until


def ended(yard: Yard, name: str, number: int) -> RunView:
    def last() -> RunView | None:
        runs = yard.training.runs(name)
        return runs[0] if len(runs) == number and runs[0].state in TERMINAL_STATES else None

    wait_until(lambda: last() is not None)
    found = last()
    assert found is not None
    return found


def test_applied_model_is_trained_promoted_and_trained_again_on_fresh_labels(supervised: Yard) -> None:
    yard = supervised
    fresh = {
        "metric": "accuracy",
        "against": "champion",
        "improveBy": 0.01,
        "on": {"fresh": {"rows": 300, "minRows": 200}},
    }
    spec = policy(yard.upload(stream(1500)), gate=[{"metric": "accuracy", "min": 0.7}, fresh])
    spec["train"] = spec["train"] | {"learnFrom": {"recent": {"rows": 1000}}}
    yard.apply("loop", spec)
    first = ended(yard, "loop", 1)
    assert first.state == "succeeded", first.reason + yard.training.logs(first.id)
    wait_until(lambda: yard.registry.model("loop").champion is not None)
    champion = yard.registry.model("loop").champion
    assert champion is not None and champion.digest == first.version

    later = stream(1200, seed=2, start=EPOCH + timedelta(minutes=2000), flipped=True)
    yard.played.labelled["loop"] = as_labelled(later, target="y", at="at")
    trigger = RunTrigger(kind="drift", episode="e1")
    yard.training.submit(SubmitRunRequest(model="loop", trigger=trigger, until_label_seq=1200))
    second = ended(yard, "loop", 2)
    assert second.state == "succeeded", second.reason + yard.training.logs(second.id)
    evaluation = yard.training.evaluation(second.id)
    assert (evaluation.kind, evaluation.rows, evaluation.insufficient) == ("fresh", 300, None)
    assert {score.role for score in evaluation.scores} == {"candidate", "champion"}
    wait_until(lambda: getattr(yard.registry.model("loop").champion, "digest", "") == second.version)
    assert [version.digest for version in yard.registry.model("loop").contenders] == [first.version]
