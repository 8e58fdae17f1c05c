"""The manifest: what is taken, what is refused, and how well the refusal helps whoever wrote it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.managed_model_v1alpha1 import UNBUILT, ManagedModel, ManifestError, parse_manifest

SMALLEST: dict[str, Any] = {
    "metadata": {"name": "m"},
    "spec": {
        "task": "regression",
        "data": {"source": {"uri": "dataset://sha256:" + "0" * 64}, "target": "y"},
        "train": {"recipe": {"estimator": "ridge"}},
    },
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the document with the value at a dotted path; parts that are missing are made."""
    copied = copy.deepcopy(document)
    *way, last = path.split(".")
    here = copied
    for part in way:
        here = here.setdefault(part, {})
    here[last] = value
    return copied


def refusal(document: object) -> dict[str, str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document)
    return {error.path: error.message for error in caught.value.errors}


def test_the_design_example_parses(electricity: dict[str, Any]) -> None:
    spec = parse_manifest(electricity).spec

    assert spec.train.learn_from.recent is not None
    assert spec.train.learn_from.recent.rows == 4000
    assert spec.rollout.steps[1].for_ == "10m"
    assert spec.fresh is not None
    assert (spec.fresh.rows, spec.fresh.min_rows) == (1000, 500)
    assert spec.label_delay_s == 86400


@pytest.mark.parametrize("key", [True, "true", "on"], ids=["PyYAML", "kubectl", "quoted"])
def test_a_gates_on_survives_yaml_readers_that_take_it_for_a_boolean(electricity: dict[str, Any], key: Any) -> None:
    electricity["spec"]["gate"] = [{"metric": "accuracy", "min": 0.6, key: {"fresh": {"rows": 700}}}]

    fresh = parse_manifest(electricity).spec.fresh

    assert fresh is not None
    assert fresh.rows == 700


def test_the_smallest_manifest_has_safe_defaults() -> None:
    spec = parse_manifest(SMALLEST).spec

    assert (spec.paused, spec.deletion_policy, spec.gate, spec.train.when) == (False, "retain", (), ())
    assert (spec.rollout.promote, spec.rollout.steps, spec.rollout.contenders) == ("automatic", (), 3)
    assert (spec.train.split.by, spec.train.split.test, spec.train.seed) == ("random", 0.2, 0)
    assert (spec.monitor.window.rows, spec.monitor.drift.psi, spec.monitor.label_delay) == (1000, 0.2, "1d")
    assert (spec.serve.log_payloads, spec.monitor.replay) == (1.0, False)


WRONG = [
    ("spec.task", "clasification", "spec.task", "'clasification'", "'classification', 'regression' or 'anomaly'"),
    ("spec.task", None, "spec.task", "None", "'classification'"),
    ("kind", "Model", "kind", "'Model'", "'ManagedModel'"),
    ("apiVersion", "v1", "apiVersion", "'v1'", "'modelyard.dev/v1alpha1'"),
    ("metadata.name", "Bad_Name", "metadata.name", "'Bad_Name'", "[a-z0-9]"),
    ("spec.data.source", "rows.csv", "spec.data.source", "'rows.csv'", "an object"),
    ("spec.data.target", "", "spec.data.target", "''", "at least 1 character"),
    ("spec.data.positiveClass", [1], "spec.data.positiveClass", "[1]", "text or a whole number"),
    ("spec.data.keys", "at", "spec.data.keys", "'at'", "a list"),
    ("spec.data.checks.maxMissing", 2, "spec.data.checks.maxMissing", "2", "at most 1"),
    ("spec.data.features.price.min", "low", "spec.data.features.price.min", "'low'", "a number"),
    ("spec.train.recipe.estimator", "xgboost", "spec.train.recipe.estimator", "'xgboost'", "'ridge'"),
    ("spec.train.recipe.params.depth", [3], "spec.train.recipe.params.depth", "[3]", "true or false"),
    ("spec.train.recipe.params.rate", float("nan"), "spec.train.recipe.params.rate", "nan", "a finite number"),
    ("spec.train.seed", 1.5, "spec.train.seed", "1.5", "a whole number"),
    ("spec.train.seed", -1, "spec.train.seed", "-1", "at least 0"),
    ("spec.train.timeout", "soon", "spec.train.timeout", "'soon'", "30s, 10m, 1h30m or 1d"),
    ("spec.train.resources.memory", "lots", "spec.train.resources.memory", "'lots'", "Ki|Mi|Gi|Ti"),
    ("spec.train.split.test", 1, "spec.train.split.test", "1", "less than 1"),
    ("spec.train.when", [{"cron": "61 * * * *"}], "spec.train.when[0].cron", "'61'", "0 to 59"),
    ("spec.train.when", {"cron": "* * * * *"}, "spec.train.when", "cron", "a list"),
    ("spec.gate", [{"metric": "speed", "min": 1}], "spec.gate[0].metric", "'speed'", "'accuracy'"),
    ("spec.rollout.steps", [{"weight": 101}], "spec.rollout.steps[0].weight", "101", "at most 100"),
    ("spec.rollout.version", "latest", "spec.rollout.version", "'latest'", "sha256"),
    ("spec.monitor.window", {"rows": 10}, "spec.monitor.window.rows", "10", "at least 50"),
    ("spec.monitor.drift.psi", 0, "spec.monitor.drift.psi", "0", "more than 0"),
    ("spec.paused", "perhaps", "spec.paused", "'perhaps'", "true or false"),
    ("spec", None, "spec", "None", "an object"),
]


@pytest.mark.parametrize(
    ("at", "value", "path", "found", "allowed"), WRONG, ids=[f"{row[0]}={row[1]!r}"[:60] for row in WRONG]
)
def test_a_wrong_field_is_named_with_what_was_found_and_what_is_allowed(
    electricity: dict[str, Any], at: str, value: Any, path: str, found: str, allowed: str
) -> None:
    errors = refusal(changed(electricity, at, value))

    assert list(errors) == [path]
    assert found in errors[path]
    assert allowed in errors[path]


RULES = [
    ("spec.gate", [{"metric": "accuracy"}], "spec.gate[0]", "either min or max, or against: champion"),
    ("spec.gate", [{"metric": "accuracy", "min": 1, "against": "champion"}], "spec.gate[0]", "either min or max"),
    ("spec.gate", [{"metric": "accuracy", "min": 1, "improveBy": 1}], "spec.gate[0]", "improveBy needs against"),
    (
        "spec.gate",
        [{"metric": "accuracy", "min": 0, "on": {"fresh": {"rows": 9, "minRows": 10}}}],
        "spec.gate[0].on.fresh",
        "minRows must not be larger",
    ),
    ("spec.gate", [{"metric": "rmse", "max": 1}], "spec", "gate[0].metric: found 'rmse', allowed for classification"),
    ("spec.monitor.performance.metric", "r2", "spec", "monitor.performance.metric: found 'r2'"),
    (
        "spec.train.when",
        [{"performance": {"metric": "mae", "above": 1}}],
        "spec",
        "train.when[0].performance.metric: found 'mae'",
    ),
    ("spec.train.when", [{}], "spec.train.when[0]", "exactly one of cron, drift and performance"),
    (
        "spec.train.when",
        [{"performance": {"metric": "accuracy"}}],
        "spec.train.when[0].performance",
        "exactly one of below and above",
    ),
    ("spec.rollout.steps", [{"shadow": True, "weight": 5}], "spec.rollout.steps[0]", "either shadow: true or weight"),
    ("spec.rollout.steps", [{"minRequests": 5}], "spec.rollout.steps[0]", "either shadow: true or weight"),
    ("spec.rollout.abortIf", [{"signal": "p99"}], "spec.rollout.abortIf[0]", "exactly one of above, below and ratio"),
    ("spec.rollout.promote", "pinned", "spec.rollout", "pinned and version go together"),
    ("spec.serve.replicas", {"min": 3, "max": 2}, "spec.serve.replicas", "min must not be larger than max"),
    ("spec.monitor.window", {"rows": 100, "for": "1h"}, "spec.monitor.window", "exactly one of rows and for"),
    ("spec.data.keys", ["at"], "spec", "must be different columns"),
    ("spec.data.features", {"up": {}}, "spec", "data.features.up: a target, timestamp or key is never a feature"),
    ("spec.data.timestamp", None, "spec", "train.split.by: time needs data.timestamp"),
    ("spec.serve.redact", ["up"], "spec", "a target, timestamp or key is never logged"),
    ("spec.serve.redact", ["nswprice"], "spec", "set learnFrom.feedback to false and no gate's on.fresh"),
]


@pytest.mark.parametrize(("at", "value", "path", "sentence"), RULES, ids=[f"{row[0]}: {row[3]}"[:60] for row in RULES])
def test_fields_that_do_not_go_together_are_refused_with_the_rule(
    electricity: dict[str, Any], at: str, value: Any, path: str, sentence: str
) -> None:
    errors = refusal(changed(electricity, at, value))

    assert list(errors) == [path]
    assert sentence in errors[path]


def test_a_model_that_learns_from_its_history_alone_may_redact() -> None:
    alone = changed(SMALLEST, "spec.train.learnFrom", {"feedback": False})

    assert parse_manifest(changed(alone, "spec.serve.redact", ["income"])).spec.serve.redact == ("income",)


def test_all_wrong_fields_are_named_at_once(electricity: dict[str, Any]) -> None:
    electricity["spec"] |= {"task": "t", "paused": "p", "owner": 3}

    assert set(refusal(electricity)) == {"spec.task", "spec.paused", "spec.owner"}


def test_a_missing_field_is_required() -> None:
    assert refusal({"metadata": {}, "spec": {}}) == {
        "metadata.name": "is required",
        "spec.task": "is required",
        "spec.data": "is required",
        "spec.train": "is required",
    }


@pytest.mark.parametrize(
    ("at", "hint"),
    [
        ("spce", "did you mean spec?"),
        ("spec.tsak", "did you mean task?"),
        ("spec.train.learn_from", "did you mean learnFrom?"),
        ("spec.train.recipe.estimater", "did you mean estimator?"),
        ("spec.rollout.abortif", "did you mean abortIf?"),
        ("spec.data.source.zzz", "it has uri"),
        ("spec.data.features.price.maximum", "it has type, required, min, max, categories"),
        ("gate", "it has apiVersion, kind, metadata, spec"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(
    electricity: dict[str, Any], at: str, hint: str
) -> None:
    errors = refusal(changed(electricity, at, {}))

    assert errors[at] == f"is not a field of this object; {hint}"


def test_an_unknown_field_inside_a_list_shows_the_fields_there_are(electricity: dict[str, Any]) -> None:
    electricity["spec"]["gate"] = [{"metric": "accuracy", "minimum": 1, "min": 0}]

    assert "it has metric, min, max, against" in refusal(electricity)["spec.gate[0].minimum"]


@pytest.mark.parametrize("path", UNBUILT)
def test_a_field_that_is_not_built_yet_says_what_to_do_instead(electricity: dict[str, Any], path: str) -> None:
    errors = refusal(changed(electricity, path, {}))

    assert errors == {path: UNBUILT[path]}
    assert any(words in errors[path] for words in ("not built yet", "nothing to turn on"))


@pytest.mark.parametrize("document", [None, "text", 3, [], [{}]])
def test_what_is_no_object_is_refused_as_a_whole(document: object) -> None:
    assert list(refusal(document)) == ["(document)"]


def test_a_key_that_yaml_does_not_read_as_text_is_explained(electricity: dict[str, Any]) -> None:
    electricity["spec"]["data"]["features"] = {False: {"type": "number"}}

    assert "found the key False: write it in quotes" in refusal(electricity)["spec.data.features"]


def test_an_object_read_from_kubernetes_is_taken_as_it_is(electricity: dict[str, Any]) -> None:
    stored = copy.deepcopy(electricity)
    stored["status"] = {"champion": "sha256:…"}
    stored["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [{}]}

    assert parse_manifest(stored).spec == parse_manifest(electricity).spec


def test_what_is_shown_of_a_wrong_value_is_short(electricity: dict[str, Any]) -> None:
    assert len(refusal(changed(electricity, "spec.task", "x" * 10_000))["spec.task"]) < 300


def test_a_manifest_survives_the_wire(electricity: dict[str, Any]) -> None:
    manifest = parse_manifest(electricity)

    assert parse_manifest(manifest.to_wire()) == manifest
    assert ManagedModel.model_validate_json(manifest.model_dump_json(by_alias=True)) == manifest


def test_the_wire_form_shows_only_what_was_written() -> None:
    assert set(parse_manifest(SMALLEST).to_wire()["spec"]) == {"task", "data", "train"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    "metadata", "metadata.name", "spec", "spec.task", "spec.data", "spec.data.features", "spec.data.features.a",
    "spec.train", "spec.train.recipe.params", "spec.train.when", "spec.gate", "spec.rollout", "spec.rollout.steps",
    "spec.monitor", "spec.monitor.window", "spec.serve.replicas", "spec.new",
]  # fmt: skip


@given(place=st.sampled_from(PLACES), value=JSON)
def test_whatever_stands_in_a_field_is_taken_or_refused_with_a_path(place: str, value: Any) -> None:
    try:
        parse_manifest(changed(SMALLEST, place, value))
    except ManifestError as exc:
        assert all(error.path and error.message for error in exc.errors)
        assert all(
            error.path == "(document)" or error.path.split(".")[0] in {"metadata", "spec"} for error in exc.errors
        )
