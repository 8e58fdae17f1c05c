"""What `kubectl get mm` and `kubectl describe` tell, at each stage of a model's life."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from modelyard_contracts.managed_model_status_v1alpha1 import CONDITIONS, ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_operator.domain.observed import Away, Loaded, Observed, Seen
from modelyard_operator.domain.status import status_of
from operator_yard import DIGEST, NOW, document, drift, managed, model, observed, rollout, run, version

HOLD = {"decision": "hold", "reason": "version 2 passed its gates"}
KEEP = {"decision": "keep", "reason": "accuracy 0.5 is below 0.6"}
OOM = "the training job ran out of memory (OOMKilled) at 2Gi"


def shown(seen: Observed) -> dict[str, tuple[str, str]]:
    return {found.type: (found.status, found.reason) for found in status_of(seen, NOW).conditions}


def test_all_conditions_are_there_and_each_is_explained() -> None:
    assert list(shown(observed())) == list(CONDITIONS)


STAGES: list[Any] = [
    pytest.param(
        observed(registry=Seen(model()), run=Seen(None), drift=Seen(None), loaded=Seen(None)),
        {"Ready": ("False", "NoChampion"), "Accepted": ("True", "Applied"), "Trained": ("False", "NoRun")},
        "waits for the first run",
        id="applied",
    ),
    pytest.param(
        observed(registry=Seen(model()), run=Seen(run()), loaded=Seen(None)),
        {"Ready": ("False", "NoChampion"), "Trained": ("False", "Training"), "Progressing": ("True", "Training")},
        "run run-1 is running (fit)",
        id="first run at work",
    ),
    pytest.param(
        observed(registry=Seen(model()), run=Seen(run("starting", stage="", reason="cannot be launched yet: quota"))),
        {"Progressing": ("True", "Training")},
        "run run-1 is starting: cannot be launched yet: quota",
        id="first run waits for the cluster",
    ),
    pytest.param(
        observed(registry=Seen(model()), run=Seen(run("failed", reason=OOM)), loaded=Seen(None)),
        {"Ready": ("False", "NoChampion"), "Trained": ("False", "RunFailed"), "Stalled": ("True", "RunFailed")},
        f"run run-1 is failed: {OOM}",
        id="first run out of memory",
    ),
    pytest.param(
        observed(run=Seen(run("failed", reason=OOM))),
        {"Ready": ("True", "Serving"), "Trained": ("False", "RunFailed"), "Stalled": ("False", "NotStalled")},
        "",
        id="retraining out of memory, the champion serves on",
    ),
    pytest.param(
        observed(loaded=Seen(Loaded(frozenset(), "its digest is wrong"))),
        {"Ready": ("False", "NotLoaded"), "Serving": ("False", "NotLoaded")},
        "inference has not loaded version 1: its digest is wrong",
        id="champion not loaded",
    ),
    pytest.param(observed(), {"Ready": ("True", "Serving"), "Progressing": ("False", "Idle")}, "", id="served"),
    pytest.param(
        observed(registry=Seen(model(champion=version(), last_verdict=KEEP))),
        {"Ready": ("True", "Serving"), "Stalled": ("False", "NotStalled")},
        "",
        id="a refused candidate is no fault",
    ),
    pytest.param(
        observed(registry=Seen(model(last_verdict=KEEP)), loaded=Seen(None)),
        {"Ready": ("False", "NoChampion")},
        "no version is served: keep: accuracy 0.5 is below 0.6",
        id="the first version was refused",
    ),
    pytest.param(
        observed(registry=Seen(model(champion=version(), last_verdict=HOLD))),
        {"Ready": ("True", "Serving"), "Stalled": ("False", "NotStalled")},
        "waits for approval: version 2 passed its gates",
        id="a person has to approve",
    ),
    pytest.param(
        observed(registry=Seen(model(champion=version(), candidate=version(2, "candidate"), rollout=rollout()))),
        {"Ready": ("True", "Serving"), "Progressing": ("True", "RollingOut")},
        "30 more responses of the candidate",
        id="rolling out",
    ),
    pytest.param(
        observed(registry=Seen(model(champion=version(), rollout=rollout("paused")))),
        {"Progressing": ("False", "RolloutPaused")},
        "rollout ro-1 is paused: resume or abort it",
        id="rollout paused",
    ),
    pytest.param(
        observed(drift=Seen(drift("high", ("price", "demand"), pending_commands=1))),
        {"Ready": ("True", "Serving"), "Drifting": ("True", "EpisodeOpen"), "Stalled": ("False", "NotStalled")},
        "drift asks for a training run",
        id="drifting is no fault",
    ),
    pytest.param(observed(drift=Seen(drift("unknown"))), {"Drifting": ("Unknown", "NoWindow")}, "", id="no window"),
    pytest.param(
        observed(object=managed(manifest=None, fault="spec.gate[0]: give either min or max")),
        {"Ready": ("False", "Refused"), "Serving": ("True", "Serving"), "Stalled": ("True", "Refused")},
        "mend spec: spec.gate[0]: give either min or max",
        id="a wrong spec, the champion serves on",
    ),
    pytest.param(
        observed(registry=Away("registry cannot be asked: refused")),
        {"Ready": ("Unknown", "RegistryAway"), "Accepted": ("Unknown", "RegistryAway")},
        "waits for the registry: registry cannot be asked: refused",
        id="registry away",
    ),
    pytest.param(
        observed(run=Away("t"), drift=Away("d"), loaded=Away("i")),
        {
            "Ready": ("Unknown", "InferenceAway"),
            "Trained": ("Unknown", "TrainingAway"),
            "Drifting": ("Unknown", "DriftAway"),
            "Progressing": ("Unknown", "TrainingAway"),
        },
        "i",
        id="all but the registry away",
    ),
    pytest.param(
        observed(object=managed(deleting=True), registry=Away("r")),
        {"Ready": ("False", "Deleting")},
        "waits for the registry to delete the model: r",
        id="deleting while the registry is away",
    ),
]


@pytest.mark.parametrize(("seen", "expected", "following"), STAGES)
def test_each_stage_tells_the_truth(seen: Observed, expected: dict[str, tuple[str, str]], following: str) -> None:
    assert expected.items() <= shown(seen).items()
    assert status_of(seen, NOW).next == following


def test_a_paused_model_says_so() -> None:
    paused = parse_manifest(document(paused=True))
    seen = observed(
        object=managed(manifest=paused), registry=Seen(model({"paused": True}, champion=version())), run=Seen(None)
    )
    assert shown(seen)["Progressing"] == ("False", "Paused")
    assert shown(seen)["Trained"] == ("True", "Brought")


def test_the_columns_show_versions_step_and_drift() -> None:
    view = model(champion=version(1), candidate=version(2, "candidate"), rollout=rollout())
    status = status_of(observed(registry=Seen(view), drift=Seen(drift("high", ("b", "a")))), NOW)
    assert (status.champion and status.champion.number, status.candidate and status.candidate.number) == (1, 2)
    assert (status.step, status.candidate and status.candidate.weight) == ("2/2 25%", 25)
    assert status.drift is not None
    assert (status.drift.severity, status.drift.features) == ("high", ("a", "b"))
    paused = view.model_copy(update={"rollout": model(rollout=rollout("paused")).rollout})
    assert status_of(observed(registry=Seen(paused)), NOW).step == "2/2 25% paused"


def test_a_column_is_one_line_also_when_a_reason_brings_a_log() -> None:
    failed = run("failed", reason="ended with exit code 3; the end of its log:\nTraceback\n  File x\n" + "y" * 500)
    status = status_of(observed(registry=Seen(model()), run=Seen(failed)), NOW)
    assert status.next.startswith("run run-1 is failed: ended with exit code 3; the end of its log: Traceback File x")
    assert (len(status.next), status.next[-1]) == (100, "…")


def test_what_a_service_that_is_away_last_said_stays() -> None:
    view = model(champion=version(7), candidate=version(8, "candidate"), rollout=rollout())
    before = status_of(observed(registry=Seen(view), drift=Seen(drift("low", ("a",)))), NOW)
    seen = observed(object=managed(status=before, generation=2), registry=Away("r"), run=Away("t"), drift=Away("d"))
    after = status_of(seen, NOW)
    assert (after.champion, after.candidate, after.step) == (before.champion, before.candidate, before.step)
    assert (after.run, after.drift) == (before.run, before.drift)
    assert after.observed_generation == 1


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    before = status_of(observed(), NOW)
    later = NOW + timedelta(hours=1)
    seen = observed(object=managed(status=before), run=Seen(run("succeeded", id="run-2", version=DIGEST)))
    same = status_of(seen, later).condition("Trained")
    changed = status_of(replace(seen, run=Seen(run("failed"))), later).condition("Trained")
    assert same is not None
    assert changed is not None
    assert (same.last_transition_time, changed.last_transition_time) == (NOW, later)
    assert "run-2" in same.message


def test_a_status_survives_the_wire() -> None:
    status = status_of(observed(), NOW.replace(microsecond=5))
    wire = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert ManagedModelStatus.model_validate(wire) == status
