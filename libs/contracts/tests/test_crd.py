"""The CustomResourceDefinition: structural, small, and of one mind with the manifest's own validators."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import kubernetes_validate
import pytest
import yaml
from modelyard_contracts.crd import RULES, definition, main, text
from modelyard_contracts.managed_model_status_v1alpha1 import CONDITIONS, Condition, ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import UNBUILT, ManagedModel, parse_manifest

ROOT = Path(__file__).parents[3]
FILE = ROOT / "deploy/helm/crds/templates/managedmodels.yaml"
TABLES = runpy.run_path(str(Path(__file__).with_name("test_manifest.py")))
SCHEMA: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
Node = dict[str, Any]
RESERVED = {"for": "__for__", "true": "__true__"}


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from nodes(member, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}[{word}]")


def as_stored(schema: Node, value: Any) -> Any:
    """Return a value as the API server has it before it validates: nulls pruned, defaults filled in."""
    if isinstance(value, dict) and "properties" in schema:
        members = {key: member for key, member in value.items() if member is not None}
        for name, node in schema["properties"].items():
            if name not in members and "default" in node:
                members[name] = copy.deepcopy(node["default"])
        return {key: as_stored(schema["properties"].get(key, {}), member) for key, member in members.items()}
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {key: as_stored(schema["additionalProperties"], member) for key, member in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [as_stored(schema["items"], member) for member in value]
    return value


def faults(schema: Node, value: Any, path: str = "") -> Iterator[str]:
    """Yield what the API server would find wrong with a stored value: unknown fields, values, rules."""
    if schema.get("x-kubernetes-int-or-string") and not isinstance(value, int | str):
        yield f"{path}: neither integer nor string"
    shallow = {k: v for k, v in schema.items() if k not in ("properties", "items", "additionalProperties")}
    # OpenAPI 3.0 has the exclusiveMinimum of draft 4.
    for error in jsonschema.Draft4Validator(shallow).iter_errors(value):
        yield f"{path}: {error.message}"
    if isinstance(value, dict) and "properties" in schema:
        for key, member in value.items():
            if key in schema["properties"]:
                yield from faults(schema["properties"][key], member, f"{path}.{key}")
            elif path != ".metadata":
                yield f"{path}.{key}: unknown field"
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for key, member in value.items():
            yield from faults(schema["additionalProperties"], member, f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for index, member in enumerate(value):
            yield from faults(schema["items"], member, f"{path}[{index}]")
        if schema.get("x-kubernetes-list-type") == "set" and len(set(map(str, value))) != len(value):
            yield f"{path}: duplicate"


def broken_rules(schema: Node, value: Any, path: str = "") -> Iterator[str]:
    """Yield the messages of the CEL rules that do not hold; only asked when ``faults`` found nothing."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if not _program(rule["rule"]).evaluate({"self": celpy.json_to_cel(_escaped(value))}):
            yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        for key, member in value.items():
            node = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
            yield from broken_rules(node, member, f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for index, member in enumerate(value):
            yield from broken_rules(schema["items"], member, f"{path}[{index}]")


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {RESERVED.get(key, key): _escaped(member) for key, member in value.items()}
    return [_escaped(member) for member in value] if isinstance(value, list) else value


def refusals(document: Any) -> list[str]:
    """Return what the API server says about a document."""
    if not isinstance(document, dict):
        return ["not an object"]
    stored = as_stored(SCHEMA, document)
    return list(faults(SCHEMA, stored)) or list(broken_rules(SCHEMA, stored))


def from_kubectl(document: Any) -> Any:
    """Return a document as kubectl sends it: a bare ``on`` is the key ``true``."""
    if isinstance(document, dict):
        return {"true" if key is True else key: from_kubectl(value) for key, value in document.items()}
    return [from_kubectl(member) for member in document] if isinstance(document, list) else document


def manifests() -> list[Any]:
    paths = [*ROOT.glob("examples/*/model.yaml"), *Path(__file__).parent.glob("manifests/*.yaml")]
    return [pytest.param(yaml.safe_load(path.read_text()), id=str(path.relative_to(ROOT))) for path in sorted(paths)]


def test_the_file_is_fresh_and_check_says_how_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FILE), "--check"]) == 0, "run `make fmt`"
    assert main([str(tmp_path / "crd.yaml"), "--check"]) == 1
    assert "make fmt" in capsys.readouterr().err
    assert main([str(tmp_path / "crd.yaml")]) == 0
    assert main([str(tmp_path / "crd.yaml"), "--check"]) == 0


def test_the_file_is_small_and_helm_leaves_it_as_it_is() -> None:
    assert len(text().encode()) < 64 * 1024
    assert "{{" not in text()
    assert yaml.safe_load(text()) == definition()


def test_kubernetes_knows_every_field_of_the_definition() -> None:
    kubernetes_validate.validate(definition(), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("path", "node"), list(nodes(SCHEMA)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_node_is_structural(path: str, node: Node) -> None:
    free = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
    assert ("type" in node) != bool(free)
    assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "title", "default"} & node.keys() - {
        "default"
    }
    assert not ("properties" in node and "additionalProperties" in node)
    assert (node.get("type") == "array") == ("items" in node)
    assert set(node.get("required", ())) <= node.get("properties", {}).keys()
    assert isinstance(node.get("exclusiveMinimum", False), bool)
    if "default" in node:
        assert list(faults(node, as_stored(node, node["default"]))) == []
    if node.get("type") == "array" and not path.startswith(".status"):
        assert node["maxItems"] > 0, "the cost of rules is bounded only with it"


def test_status_is_a_subresource_and_the_columns_exist_in_it() -> None:
    version = definition()["spec"]["versions"][0]
    columns = {column["name"]: column["jsonPath"] for column in version["additionalPrinterColumns"]}

    assert version["subresources"] == {"status": {}}
    assert [name.upper() for name in columns] == ["READY", "CHAMPION", "CANDIDATE", "STEP", "DRIFT", "NEXT", "AGE"]
    known = {path for path, _ in nodes(SCHEMA)}
    assert {path for path in columns.values() if "[" not in path} - known == {".metadata.creationTimestamp"}
    assert columns["Ready"] == ".status.conditions[?(@.type=='Ready')].status"
    assert "Ready" in CONDITIONS


def test_the_status_that_the_operator_writes_validates() -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = ManagedModelStatus(
        observed_generation=3,
        conditions=(Condition.model_validate(condition),),
        champion={"number": 1, "digest": "sha256:" + "a" * 64},
        next="60 more responses",
    )

    stored = as_stored(SCHEMA["properties"]["status"], status.model_dump(mode="json", by_alias=True, exclude_none=True))

    assert list(faults(SCHEMA["properties"]["status"], stored)) == []


@pytest.mark.parametrize("document", manifests())
def test_every_manifest_of_the_project_is_taken_also_as_kubectl_sends_it(document: Any) -> None:
    sent = from_kubectl(document)

    assert refusals(sent) == []
    assert parse_manifest(sent) == parse_manifest(document)


@pytest.mark.parametrize("document", manifests())
def test_what_the_server_stores_with_its_defaults_is_the_same_policy(document: Any) -> None:
    stored = as_stored(SCHEMA, from_kubectl(document))

    assert parse_manifest(stored).spec.model_dump() == parse_manifest(document).spec.model_dump()


def test_the_smallest_manifest_gets_the_defaults_of_the_contract() -> None:
    smallest = TABLES["SMALLEST"]
    stored = as_stored(SCHEMA, smallest)

    assert refusals(smallest) == []
    for name in ManagedModel.model_fields["spec"].annotation.model_fields:  # type: ignore[union-attr]
        if name not in ("task", "data", "train"):
            assert {"deletion_policy": "deletionPolicy"}.get(name, name) in stored["spec"]


ONLY_THE_REGISTRY = {"spec.train.when[0].cron", "spec.train.recipe.params.depth", "kind", "apiVersion"}
"""What a schema cannot tell: the values of a cron line, that params are scalars; the kind chose the schema."""


@pytest.mark.parametrize(
    ("at", "value", "path"),
    [row[:3] for row in TABLES["WRONG"]],
    ids=[str(row[:2])[:60] for row in TABLES["WRONG"]],
)
def test_a_wrong_field_is_refused_by_the_server_too(
    electricity: dict[str, Any], at: str, value: Any, path: str
) -> None:
    found = refusals(from_kubectl(TABLES["changed"](electricity, at, value)))

    if path in ONLY_THE_REGISTRY or value != value:  # NaN is no JSON
        return
    assert found, f"{at}: {value!r} is taken"


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [(row[0], row[1], row[3]) for row in TABLES["RULES"]],
    ids=[f"{row[0]}: {row[3]}"[:60] for row in TABLES["RULES"]],
)
def test_fields_that_do_not_go_together_are_refused_by_a_rule_with_the_same_words(
    electricity: dict[str, Any], at: str, value: Any, sentence: str
) -> None:
    found = refusals(from_kubectl(TABLES["changed"](electricity, at, value)))

    assert found
    words = sentence.rpartition(": ")[2].rpartition(" found ")[0] or sentence.rpartition(": ")[2]
    assert any(words.split(" for ")[0] in message or "must fit the task" in message for message in found), found


@pytest.mark.parametrize("path", UNBUILT)
def test_a_field_that_is_not_built_yet_is_no_field_of_the_schema(electricity: dict[str, Any], path: str) -> None:
    assert any("unknown field" in found for found in refusals(from_kubectl(TABLES["changed"](electricity, path, {}))))


def test_on_given_twice_is_refused(electricity: dict[str, Any]) -> None:
    fresh = {"fresh": {"rows": 700}}
    electricity["spec"]["gate"] = [{"metric": "accuracy", "min": 0.6, "on": fresh, "true": fresh}]

    assert any("on is given twice" in found for found in refusals(electricity))


def test_every_rule_stands_at_a_class_that_is_in_the_schema() -> None:
    placed = {rule["rule"] for _, node in nodes(SCHEMA) for rule in node.get("x-kubernetes-validations", ())}

    assert placed == {rule for rules in RULES.values() for rule, _ in rules}
