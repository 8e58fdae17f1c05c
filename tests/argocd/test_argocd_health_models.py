"""The health of ManagedModels, over the statuses that the operator itself gives."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from modelyard_contracts.managed_model_status_v1alpha1 import CONDITIONS, Condition
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_operator.domain import conditions
from modelyard_operator.domain.observed import Away, Loaded, Observed, Seen
from modelyard_operator.domain.status import status_of
from operator_yard import DIGEST, NOW, document, drift, managed, model, observed, rollout, run, version

from tests.argocd.lua import HEALTH, health

SCRIPT = HEALTH / "managedmodel.lua"
KEEP = {"decision": "keep", "reason": "accuracy 0.5 is below 0.6"}
HOLD = {"decision": "hold", "reason": "version 2 passed its gates"}
CANDIDATE = version(2, "candidate")


def stored(seen: Observed, **changed: Any) -> dict[str, Any]:
    """Return the object as the API server has it once the operator wrote its status."""
    metadata = {"name": "m", "generation": seen.object.generation}
    if seen.object.deleting:
        metadata["deletionTimestamp"] = NOW.isoformat()
    spec = seen.object.manifest.spec.model_dump(mode="json", by_alias=True) if seen.object.manifest else {}
    status = status_of(seen, NOW).model_dump(mode="json", by_alias=True, exclude_none=True)
    return document() | {"metadata": metadata, "spec": spec, "status": status} | changed


def judged(seen: Observed) -> str:
    return health(SCRIPT, stored(seen))[0]


PAUSED = managed(manifest=parse_manifest(document(paused=True)))
FAILED = Seen(run("failed", reason="OOMKilled"))
CASES: list[Any] = [
    ("first run waits", "Progressing", {"registry": Seen(model()), "run": Seen(None), "loaded": Seen(None)}),
    ("first run at work", "Progressing", {"registry": Seen(model()), "run": Seen(run()), "loaded": Seen(None)}),
    ("first run failed", "Degraded", {"registry": Seen(model()), "run": FAILED, "loaded": Seen(None)}),
    ("first run timed out", "Degraded", {"registry": Seen(model()), "run": Seen(run("timed_out"))}),
    ("first run cancelled", "Suspended", {"registry": Seen(model()), "run": Seen(run("cancelled"))}),
    ("first candidate refused", "Progressing", {"registry": Seen(model(last_verdict=KEEP)), "loaded": Seen(None)}),
    ("first candidate waits for approval", "Progressing", {"registry": Seen(model(last_verdict=HOLD))}),
    ("first rollout", "Progressing", {"registry": Seen(model(candidate=CANDIDATE, rollout=rollout()))}),
    ("first rollout paused", "Suspended", {"registry": Seen(model(candidate=CANDIDATE, rollout=rollout("paused")))}),
    ("served", "Healthy", {}),
    ("retraining", "Healthy", {"run": Seen(run())}),
    ("retraining failed", "Healthy", {"run": FAILED}),
    ("canary", "Healthy", {"registry": Seen(model(champion=version(), candidate=CANDIDATE, rollout=rollout()))}),
    ("canary paused", "Suspended", {"registry": Seen(model(champion=version(), rollout=rollout("paused")))}),
    ("canary aborted", "Healthy", {"registry": Seen(model(champion=version(), rollout=rollout("aborted")))}),
    ("candidate refused", "Healthy", {"registry": Seen(model(champion=version(), last_verdict=KEEP))}),
    ("drifting", "Healthy", {"drift": Seen(drift("critical", ("price",)))}),
    ("brought", "Healthy", {"run": Seen(None)}),
    ("champion not loaded", "Degraded", {"loaded": Seen(Loaded(frozenset(), "its digest is wrong"))}),
    ("another version loaded", "Degraded", {"loaded": Seen(Loaded(frozenset({7})))}),
    ("refused policy", "Degraded", {"refused": "gate: no such metric"}),
    ("wrong spec", "Degraded", {"object": managed(manifest=None, fault="spec.gate[0]: give either min or max")}),
    ("being applied", "Progressing", {"registry": Seen(None), "loaded": Seen(None)}),
    ("registry away", "Progressing", {"registry": Away("refused")}),
    ("inference away", "Progressing", {"loaded": Away("refused")}),
    ("training and drift away", "Healthy", {"run": Away("refused"), "drift": Away("refused")}),
    ("paused", "Suspended", {"object": PAUSED, "registry": Seen(model({"paused": True}, champion=version()))}),
    ("deleting", "Progressing", {"object": managed(deleting=True)}),
]


@pytest.mark.parametrize(("expected", "seen"), [pytest.param(e, observed(**s), id=n) for n, e, s in CASES])
def test_each_stage_of_a_model_has_its_health_and_says_why(expected: str, seen: Observed) -> None:
    status, message = health(SCRIPT, stored(seen))

    assert status == expected, message
    assert message


def test_a_message_says_what_is_worth_knowing() -> None:
    failed = health(SCRIPT, stored(observed(run=FAILED)))[1]
    drifting = health(SCRIPT, stored(observed(drift=Seen(drift("high", ("price", "demand"))))))[1]
    refused = health(SCRIPT, stored(observed(refused="gate: no such metric")))[1]

    assert failed == "inference answers with version 1; run run-1 is failed: OOMKilled"
    assert drifting == "inference answers with version 1; high drift of demand, price"
    assert "gate: no such metric" in refused


class World(NamedTuple):
    """One combination of what the operator may see, what it says of it, and the health of that."""

    seen: Observed
    conditions: Mapping[str, Condition]
    health: str


def everything() -> Iterator[Observed]:
    """Yield what the operator may see, in all combinations of what each service may say."""
    champions: list[Mapping[str, Any]] = [{}, {"champion": version()}]
    rollouts: list[Mapping[str, Any]] = [{}]
    rollouts += [{"candidate": CANDIDATE, "rollout": rollout(state)} for state in ("running", "paused", "aborted")]
    verdicts: list[Mapping[str, Any]] = [{}, {"last_verdict": KEEP}, {"last_verdict": HOLD}]
    registries: list[Any] = [Away("r"), Seen(None)]
    registries += [Seen(model(**a, **b, **c)) for a, b, c in itertools.product(champions, rollouts, verdicts)]
    states = ("pending", "starting", "running", "failed", "cancelled", "timed_out")
    runs: list[Any] = [Away("t"), Seen(None), Seen(run("succeeded", version=DIGEST)), *(Seen(run(s)) for s in states)]
    drifts: list[Any] = [Away("d"), Seen(None), Seen(drift("unknown")), Seen(drift()), Seen(drift("critical", ("x",)))]
    loads: list[Any] = [Away("i"), Seen(None), Seen(Loaded(frozenset({1}))), Seen(Loaded(frozenset(), "digest"))]
    for registry, ran, drifted, loaded in itertools.product(registries, runs, drifts, loads):
        yield Observed(managed(), registry, ran, drifted, loaded)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    """Every combination with its health; the same status is judged once."""
    known: dict[str, str] = {}
    found = []
    for seen in everything():
        status = status_of(seen, NOW)
        key = status.model_dump_json()
        if key not in known:
            known[key] = judged(seen)
        found.append(World(seen, {one.type: one for one in status.conditions}, known[key]))
    return found


def test_degraded_is_what_a_person_has_to_mend_and_nothing_else(worlds: list[World]) -> None:
    for seen, _, status in worlds:
        champion = seen.champion
        nothing_trained = (
            champion is None
            and isinstance(seen.registry, Seen)
            and isinstance(seen.run, Seen)
            and seen.run.value is not None
            and seen.run.value.state in ("failed", "timed_out")
        )
        not_served = (
            champion is not None
            and isinstance(seen.loaded, Seen)
            and (seen.loaded.value is None or champion not in seen.loaded.value.numbers)
        )
        # Before the registry has the policy nothing is about it yet.
        assert (status == "Degraded") == (seen.applied and (nothing_trained or not_served)), seen


def test_a_model_that_is_ready_is_healthy_whatever_else_goes_on(worlds: list[World]) -> None:
    for seen, found, status in worlds:
        if found["Ready"].status == "True":
            # A paused rollout waits for a person.
            assert status == ("Suspended" if found["Progressing"].reason == "RolloutPaused" else "Healthy"), seen
        else:
            assert status != "Healthy", seen


def test_drift_and_verdicts_never_change_the_health(worlds: list[World]) -> None:
    by_rest: dict[str, set[str]] = {}
    for seen, _, status in worlds:
        rest = replace(seen, drift=Seen(None))
        if isinstance(seen.registry, Seen) and seen.registry.value is not None:
            rest = replace(rest, registry=Seen(seen.registry.value.model_copy(update={"last_verdict": None})))
        by_rest.setdefault(repr(rest), set()).add(status)

    assert len(by_rest) < len(worlds) / 5
    assert [statuses for statuses in by_rest.values() if len(statuses) > 1] == []


def test_a_changed_spec_is_progressing_until_the_operator_has_seen_it(worlds: list[World]) -> None:
    for seen, _, _ in worlds[:: len(worlds) // 50]:
        changed = stored(seen)
        changed["metadata"]["generation"] += 1

        assert health(SCRIPT, changed)[0] == "Progressing"


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"observedGeneration": 1, "conditions": []}])
def test_an_object_without_a_whole_status_is_progressing(status: dict[str, Any] | None) -> None:
    found = health(SCRIPT, stored(observed(), status=status))

    assert found[0] == "Progressing"
    assert found[1]


def test_every_reason_that_the_operator_can_give_was_judged(worlds: list[World]) -> None:
    source = ast.parse(Path(conditions.__file__).read_text())
    words = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    reasons = {word for word in words if re.fullmatch(r"([A-Z][a-z]+)+", word)} - {"True", "False"}

    judged_reasons = {one.reason for world in worlds for one in world.conditions.values()}
    judged_reasons |= {one.reason for _, _, changed in CASES for one in status_of(observed(**changed), NOW).conditions}

    # Types of conditions and the name of a class are such words too.
    assert reasons - judged_reasons <= {*CONDITIONS, "Unknown", "Finding"}
    assert len(judged_reasons) > 20
