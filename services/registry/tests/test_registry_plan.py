"""A plan tells what apply does, and does nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_client import RegistryClient
from modelyard_contracts.bundle_v1 import MANIFEST_FILE, BundleManifest, manifest_digest
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec, parse_manifest
from modelyard_contracts.specs import spec_digest
from modelyard_registry.domain.consequences import PARTS, part_of
from modelyard_registry.domain.spec_changes import spec_changes
from pydantic import BaseModel
from registry_fakes import SPEC, FakeBundle, Platform, document, evaluation, make_bundle, role

ROLLOUT = SPEC["rollout"]
CHANGES: dict[str, dict[str, Any]] = {
    "words": {"description": "new words"},
    "paused": {"paused": True},
    "seed": {"train": {**SPEC["train"], "seed": 8}},
    "parameter": {"train": {"recipe": {"estimator": "logistic_regression", "params": {"C": 2.0}}}},
    "parameter as a truth value": {"train": {"recipe": {"estimator": "logistic_regression", "params": {"C": True}}}},
    "parameter as a number": {"train": {"recipe": {"estimator": "logistic_regression", "params": {"C": 1}}}},
    "target": {"data": {**SPEC["data"], "target": "down"}},
    "keys": {"data": {**SPEC["data"], "keys": ["a", "b"]}},
    "features": {"data": {**SPEC["data"], "features": {"x": {"min": 0}}}},
    "schedule": {"train": {**SPEC["train"], "when": [{"cron": "0 3 * * 1"}]}},
    "limits": {"train": {**SPEC["train"], "timeout": "5m"}},
    "no gates": {"gate": []},
    "other bound": {"gate": [{"metric": "accuracy", "min": 0.7}, SPEC["gate"][1]]},
    "no steps": {"rollout": {**ROLLOUT, "steps": []}},
    "one more step": {"rollout": {**ROLLOUT, "steps": [*ROLLOUT["steps"], {"weight": 50}]}},
    "contenders": {"rollout": {**ROLLOUT, "contenders": 5}},
    "payloads": {"serve": {"logPayloads": 0.5}},
    "replicas": {"serve": {"replicas": {"min": 2, "max": 4}}},
    "replay": {"monitor": {"replay": True}},
    "window": {"monitor": {"window": {"rows": 500}}},
    "window by time": {"monitor": {"window": {"for": "1h"}}},
    "nothing": {},
    "a default written out": {"paused": False, "serve": {"logPayloads": 1.0}},
}


def planned(platform: Platform, **changes: Any) -> dict[str, Any]:
    answer = platform.http.post("/v1/models/m/plan", json=document(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(plan: dict[str, Any]) -> dict[str, str]:
    return {one["part"]: one["when"] for one in plan["consequences"]}


def sentence(plan: dict[str, Any], part: str) -> str:
    return next(one["sentence"] for one in plan["consequences"] if one["part"] == part)


def everything(platform: Platform) -> list[Any]:
    """Return all that can be seen of a registry."""
    paths = ("/v1/models", "/v1/models/m/routing", "/v1/models/m/rollouts", "/v1/models/m/versions", "/v1/ledger")
    return [platform.http.get(path).json() for path in paths]


def trained(bundle: FakeBundle, training_digest: str) -> FakeBundle:
    """Return a bundle that says on which data and recipe it was trained."""
    manifest = BundleManifest.model_validate_json(bundle.files[MANIFEST_FILE])
    lineage = manifest.lineage.model_copy(update={"training_digest": training_digest})
    manifest = manifest.model_copy(update={"lineage": lineage})
    raw = json.dumps(manifest.model_dump(mode="json")).encode()
    return FakeBundle(str(manifest_digest(manifest)), {**bundle.files, MANIFEST_FILE: raw})


def fields(shape: type[BaseModel], path: str = "spec") -> Iterator[str]:
    for name, field in shape.model_fields.items():
        below = f"{path}.{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, below)
        else:
            yield below


def test_every_field_of_the_manifest_has_its_part_of_the_loop_and_every_entry_a_field() -> None:
    names = list(fields(ManagedModelSpec))

    assert len(names) > 25
    assert [part_of(name) for name in names]
    used = {next(entry for entry in PARTS if (f"{name}.").startswith(f"{entry[0]}.")) for name in names}
    assert used == set(PARTS)


@given(st.sampled_from(sorted(CHANGES)), st.sampled_from(sorted(CHANGES)))
def test_there_is_a_change_exactly_when_the_digests_differ(one: str, other: str) -> None:
    before, after = (parse_manifest(document(**CHANGES[name])).spec for name in (one, other))

    changes, back = spec_changes(before, after), spec_changes(after, before)

    assert bool(changes) == (spec_digest(before) != spec_digest(after))
    assert [(change.path, change.after) for change in changes] == [(change.path, change.before) for change in back]


@pytest.mark.parametrize(
    ("name", "path", "op", "before", "after", "part"),
    [
        ("seed", "spec.train.seed", "changed", 0, 8, "training"),
        ("parameter", "spec.train.recipe.params.C", "added", None, 2.0, "training"),
        ("features", "spec.data.features.x", "added", None, {"min": 0.0}, "training"),
        ("keys", "spec.data.keys", "changed", [], ["a", "b"], "training"),
        ("other bound", "spec.gate[0].min", "changed", 0.6, 0.7, "gate"),
        ("one more step", "spec.rollout.steps[2]", "added", None, {"weight": 50}, "rollout"),
        ("contenders", "spec.rollout.contenders", "changed", 2, 5, "contention"),
        ("replicas", "spec.serve.replicas.min", "changed", 1, 2, "record"),
    ],
)
def test_a_change_is_named_as_the_manifest_names_it(
    platform: Platform, name: str, path: str, op: str, before: Any, after: Any, part: str
) -> None:
    platform.apply()

    plan = planned(platform, **CHANGES[name])

    assert plan["changes"][0] == {"path": path, "op": op, "before": before, "after": after, "part": part}


@pytest.mark.parametrize("name", list(CHANGES))
def test_apply_does_what_the_plan_told_and_the_plan_itself_does_nothing(platform: Platform, name: str) -> None:
    platform.apply()
    platform.better(platform.champion())
    seen = everything(platform)

    plan = planned(platform, **CHANGES[name])

    assert everything(platform) == seen
    before = platform.model()
    after = platform.apply(**CHANGES[name])
    for part in ("generation", "spec_digest", "training_digest"):
        assert plan[part] == after[part]
    assert plan["action"] == ("none" if after["generation"] == before["generation"] else "update")
    assert ("routing" in told(plan)) == (after["routing_revision"] > before["routing_revision"])
    assert (told(plan).get("training") == "now") == (after["training_digest"] != before["training_digest"])
    assert bool(plan["changes"]) == bool(plan["consequences"]) == (plan["action"] == "update")


def test_new_model_is_planned_without_being_made(any_platform: Platform) -> None:
    plan = planned(any_platform)

    assert (plan["action"], plan["generation"], plan["changes"]) == ("create", 1, [])
    assert told(plan)["training"] == told(plan)["routing"] == "now"
    assert any_platform.http.get("/v1/models/m").status_code == 404
    assert any_platform.kinds() == []


def test_deleted_model_is_planned_as_one_that_is_taken_up_again(platform: Platform) -> None:
    platform.apply()
    platform.http.delete("/v1/models/m")

    plan = planned(platform)

    assert (plan["action"], plan["generation"]) == ("revive", platform.apply()["generation"])


@pytest.mark.parametrize(("policy", "when"), [("retain", "never"), ("delete", "now")])
def test_data_and_recipe_that_have_a_version_start_no_run_unless_it_was_given_up(
    platform: Platform, policy: str, when: str
) -> None:
    first = platform.apply(deletionPolicy=policy)
    bundle = trained(make_bundle(), first["training_digest"])
    platform.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
    platform.http.delete("/v1/models/m")

    plan = planned(platform, deletionPolicy=policy)

    assert told(plan)["training"] == when
    assert ("version 1 was trained on exactly this" in sentence(plan, "training")) == (policy == "retain")


def test_going_back_to_a_recipe_that_was_trained_starts_no_run(platform: Platform) -> None:
    first = platform.apply()
    bundle = trained(make_bundle(), first["training_digest"])
    platform.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
    platform.apply(**CHANGES["seed"])

    assert told(planned(platform))["training"] == "never"
    assert told(planned(platform, **CHANGES["parameter"]))["training"] == "now"


def test_paused_model_says_that_its_run_waits_and_starts_when_it_no_longer_is(platform: Platform) -> None:
    platform.apply()

    held = planned(platform, paused=True, **CHANGES["seed"])
    platform.apply(paused=True, **CHANGES["seed"])
    freed = planned(platform, **CHANGES["seed"])

    assert told(held) == {"training": "later", "pause": "now"}
    assert told(freed) == {"training": "now", "pause": "now"}


def test_pinning_a_version_is_planned_as_what_it_starts(platform: Platform) -> None:
    platform.apply()
    first = platform.champion()
    platform.better(first)
    platform.roll_out()
    unknown = {"rollout": {"promote": "pinned", "version": "sha256:" + "f" * 64}}
    back = {"rollout": {"promote": "pinned", "version": first.digest}}

    assert sentence(planned(platform, **unknown), "rollout") == "the pinned version is rolled out once it is registered"
    assert told(planned(platform, **back))["rollout"] == "now"

    assert platform.apply(**back)["candidate"] is None
    assert platform.model()["champion"]["digest"] == first.digest
    assert told(planned(platform, **back)) == {}
    assert told(planned(platform, paused=True, **back)) == {"pause": "now"}


def test_running_rollout_is_told_that_it_keeps_its_steps_and_counts_anew(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())

    assert "under way keeps the steps" in sentence(planned(platform, **CHANGES["one more step"]), "rollout")
    assert "the running step is counted anew" in sentence(planned(platform, **CHANGES["payloads"]), "routing")


def test_wrong_manifest_is_refused_as_apply_refuses_it(platform: Platform) -> None:
    wrong = document(task="guessing")
    other = document("other")

    for body in (wrong, other):
        plan, apply = platform.http.post("/v1/models/m/plan", json=body), platform.http.put("/v1/models/m", json=body)
        assert (plan.status_code, plan.json()["errors"]) == (apply.status_code, apply.json()["errors"])
        assert plan.status_code == 422


def test_client_reads_the_plan(platform: Platform) -> None:
    platform.apply()
    with RegistryClient(str(platform.http.base_url)) as client:
        plan = client.plan(parse_manifest(document(**CHANGES["seed"])))
        same = client.plan(parse_manifest(document()))

    assert [(change.path, change.after) for change in plan.changes] == [("spec.train.seed", 8)]
    assert (same.action, same.changes, same.consequences) == ("none", (), ())
