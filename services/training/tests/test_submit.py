"""Submitting: once by key and by episode, refused with a clear error, labels up to the right number."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from modelyard_common.errors import Conflict, NotFound, Overloaded, Unavailable
from modelyard_training.domain.runs import State, Trigger
from modelyard_training.usecases.submit import Submission

CHAMPION = "sha256:" + "c" * 64
FRESH = ({"metric": "accuracy", "against": "champion", "on": {"fresh": {"rows": 10, "minRows": 5}}},)


def ask(model: str = "m", **changes: Any) -> Submission:
    return Submission(model, **({"trigger": Trigger("manual")} | changes))


def test_a_run_waits_with_the_spec_as_it_was_when_it_was_asked_for(yard: Any) -> None:
    model = yard.models.put("m")
    submitted = yard.submit(ask())
    yard.models.put("m", description="changed since")
    run = yard.run(submitted.run.id)
    assert submitted.new
    assert (run.state, run.spec, run.training_digest) == (State.PENDING, model.written, model.training_digest)
    assert run.timeout_s == 600.0


def test_the_same_key_is_the_same_run(yard: Any) -> None:
    yard.models.put("m")
    first = yard.submit(ask(idempotency_key="k", request_digest="d"))
    second = yard.submit(ask(idempotency_key="k", request_digest="d"))
    assert (second.run.id, second.new) == (first.run.id, False)
    assert len(yard.runs()) == 1


def test_the_same_key_for_another_request_is_refused(yard: Any) -> None:
    yard.models.put("m")
    yard.submit(ask(idempotency_key="k", request_digest="d"))
    with pytest.raises(Conflict, match="used for another request"):
        yard.submit(ask(idempotency_key="k", request_digest="e"))


def test_a_model_below_its_floor_is_trained_again_in_the_same_episode(yard: Any) -> None:
    """Each command comes with labels that no run has seen; the same command twice is one run all the same."""
    yard.models.put("m")
    below = Trigger("performance", "critical severity", "ep-1")
    first = yard.submit(Submission("m", below, idempotency_key="decision-1"))
    again = yard.submit(Submission("m", below, idempotency_key="decision-1"))
    second = yard.submit(Submission("m", below, idempotency_key="decision-2"))

    assert again.run.id == first.run.id
    assert second.run.id != first.run.id


def test_an_episode_gets_one_run_under_whatever_key(yard: Any) -> None:
    yard.models.put("m", champion=CHAMPION)
    first = yard.submit(ask(trigger=Trigger("drift", "", "e1"), idempotency_key="a", until_label_seq=5))
    second = yard.submit(ask(trigger=Trigger("drift", "", "e1"), idempotency_key="b", until_label_seq=9))
    other = yard.submit(ask(trigger=Trigger("drift", "", "e2"), until_label_seq=9))
    assert second.run.id == first.run.id != other.run.id


def test_a_key_is_answered_while_the_registry_is_away(yard: Any) -> None:
    yard.models.put("m")
    first = yard.submit(ask(idempotency_key="k"))
    yard.models.away = True
    assert yard.submit(ask(idempotency_key="k")).run == first.run


def test_threads_that_ask_at_once_under_one_key_get_one_run(yard: Any) -> None:
    yard.models.put("m")
    found: list[str] = []

    def submit() -> None:
        found.append(yard.submit(ask(idempotency_key="k")).run.id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(yard.runs()) == 1


def test_an_unknown_model_is_refused(yard: Any) -> None:
    with pytest.raises(NotFound, match="there is no model 'm'; apply its manifest first"):
        yard.submit(ask())


def test_a_deleted_model_is_refused(yard: Any) -> None:
    yard.models.put("m")
    yard.models.delete("m")
    with pytest.raises(NotFound, match="there is no model 'm'"):
        yard.submit(ask())


def test_a_paused_model_is_refused(yard: Any) -> None:
    yard.models.put("m", paused=True)
    with pytest.raises(Conflict, match="model 'm' is paused"):
        yard.submit(ask())


def test_a_full_queue_is_refused(yard: Any) -> None:
    yard.models.put("m")
    for _ in range(5):
        yard.submit(ask())
    with pytest.raises(Overloaded, match="5 runs are waiting already"):
        yard.submit(ask())


def test_nothing_is_made_while_the_registry_is_away(yard: Any) -> None:
    yard.models.away = True
    with pytest.raises(Unavailable, match="registry"):
        yard.submit(ask())
    assert yard.runs() == []


def test_a_first_run_learns_from_no_labels_even_while_drift_is_away(yard: Any) -> None:
    yard.labels.away = True
    yard.models.put("m")
    assert yard.submit(ask()).run.until_label_seq is None
    assert yard.submit(ask(until_label_seq=7)).run.until_label_seq is None


def test_a_retrain_learns_from_the_labels_that_drift_has_now(yard: Any) -> None:
    yard.labels.seq = 42
    yard.models.put("m", champion=CHAMPION)
    assert yard.submit(ask()).run.until_label_seq == 42
    assert yard.submit(ask(until_label_seq=40)).run.until_label_seq == 40


def test_a_manual_retrain_is_refused_while_drift_is_away(yard: Any) -> None:
    yard.labels.away = True
    yard.models.put("m", champion=CHAMPION)
    with pytest.raises(Unavailable, match="drift"):
        yard.submit(ask())


def test_drift_is_asked_only_when_labels_are_used(yard: Any) -> None:
    yard.labels.away = True
    train = {"recipe": {"estimator": "decision_tree"}, "learnFrom": {"feedback": False}}
    yard.models.put("m", champion=CHAMPION, train=train)
    yard.models.put("judged", champion=CHAMPION, train=train, gate=FRESH)
    assert yard.submit(ask()).run.until_label_seq is None
    with pytest.raises(Unavailable, match="drift"):
        yard.submit(ask("judged"))
