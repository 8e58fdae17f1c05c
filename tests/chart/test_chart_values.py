"""Values are closed and described; each rule of each schema refuses what it should, and Helm asks the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.rendering import SERVICES, Document, Helm, Refused, merged, profile
from tools.charts.build import HELM
from tools.charts.catalog import CHARTS
from tools.charts.write import rendered

SCHEMAS = {name: json.loads((HELM / name / "values.schema.json").read_text()) for name in CHARTS}
VALUES = {name: yaml.safe_load((HELM / name / "values.yaml").read_text()) for name in CHARTS}


def test_written_files_are_what_the_declarations_say() -> None:
    stale = [str(path) for path, text in rendered().items() if not path.exists() or path.read_text() != text]

    assert stale == [], "run `python -m tools.charts.write`"


def _fields(schema: Document, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Document]]:
    """Yield every value that a schema declares, with where it is."""
    for name, field in schema.get("properties", {}).items():
        yield (*path, name), field
        yield from _fields(field, (*path, name))


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_described_and_every_group_is_closed(chart: str) -> None:
    fields = dict(_fields(SCHEMAS[chart]))

    assert [path for path, field in fields.items() if not field.get("description")] == [], "declare a docstring"
    for path, field in fields.items():
        if field.get("type") == "object" and path != ("modelyard-common", "global"):
            is_open = field.get("additionalProperties", True) is True
            assert is_open == bool(field.get("x-kubernetes-object") or field.get("x-chart")), path


@pytest.mark.parametrize("chart", CHARTS)
def test_the_defaults_are_allowed(chart: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[chart])
    jsonschema.validate(VALUES[chart], SCHEMAS[chart], jsonschema.Draft7Validator)
    assert SCHEMAS[chart]["additionalProperties"] is False


def _violations(field: Document) -> Iterator[tuple[str, Any]]:
    """Yield what each rule of a field must refuse: (the rule, a value)."""
    match field.get("type"):
        case "string":
            yield "type", 7
            if "enum" in field:
                yield "enum", "no-such-choice"
            if "pattern" in field:
                yield "pattern", "\n~ no ~"
            if "maxLength" in field:
                yield "maxLength", "a" * (field["maxLength"] + 1)
        case "integer" | "number":
            yield "type", "7 or so"
            if field["type"] == "integer":
                yield "type", 7.5
            for rule, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)):
                if rule in field:
                    yield rule, field[rule] + step
        case "boolean":
            yield "type", "yes"
        case "array":
            yield "type", {"a": "list"}
            for rule, value in _violations(field.get("items", {})):
                yield rule, [value]
        case "object":
            yield "type", ["a", "map"]
            inside = field.get("additionalProperties")
            if inside is False:
                yield "additionalProperties", {"noSuchValue": 1}
            elif isinstance(inside, dict):
                for rule, value in _violations(inside):
                    yield rule, {"key": value}
    if "not" in field:
        yield "not", field["not"]["const"]


@pytest.mark.parametrize("chart", CHARTS)
def test_every_rule_of_a_schema_refuses(chart: str) -> None:
    rules = [(path, field, *one) for path, field in _fields(SCHEMAS[chart]) for one in _violations(field)]

    lets_through = [
        (".".join(path), rule, value)
        for path, field, rule, value in rules
        if rule not in {_deepest(error).validator for error in jsonschema.Draft7Validator(field).iter_errors(value)}
    ]

    assert len(rules) > 20
    assert lets_through == []


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    return min(error.context, key=lambda inner: len(inner.path)) if error.context else error


TYPOS = [
    ("inference", {"repicas": 3}, "repicas"),
    ("registry", {"image": {"tag": "latest"}}, "tag"),
    ("training", {"settings": {"maxRuning": 2}}, "maxRuning"),
    ("drift", {"settings": {"chunkRows": 0}}, "chunkRows"),
    ("operator", {"resources": {"requests": {"cpu": "lots"}}}, "cpu"),
    ("mlflow", {"image": {"digest": "sha256:short"}}, "digest"),
    ("crds", {"keep": True}, "keep"),
    ("observability", {"serviceMonitors": {"interval": "often"}}, "interval"),
    ("training", {"replicas": 2}, "replicas"),
    ("inference", {"global": {"podSecurity": {"runAsUser": 0}}}, "runAsUser"),
]


@pytest.mark.parametrize("major", ["helm3", "helm4"])
@pytest.mark.parametrize(("chart", "values", "named"), TYPOS, ids=[f"{chart}-{named}" for chart, _, named in TYPOS])
def test_helm_refuses_and_names_the_value_alone_and_under_the_umbrella(
    helms: Mapping[str, Helm], major: str, chart: str, values: Document, named: str
) -> None:
    inside = values if "global" in values else {chart: {"enabled": True, **values}}

    for name, told in ((chart, values), ("modelyard", merged(profile("small"), inside))):
        with pytest.raises(Refused, match=named):
            helms[major].render(name, told)


REFUSALS = [
    ("mlflow", {}, "set artifacts to an object store"),
    ("mlflow", {"replicas": 2, "persistence": {"enabled": True}}, "several replicas need an object store"),
    ("inference", {"ingress": {"enabled": True, "host": "x.example.org"}}, "networkPolicy.clients is empty"),
    ("inference", {"httpRoute": {"enabled": True}}, "networkPolicy.clients is empty"),
    ("registry", {"ingress": {"enabled": True}, "networkPolicy": {"clients": [{}]}}, "needs ingress.host"),
    ("registry", {"httpRoute": {"enabled": True}, "networkPolicy": {"clients": [{}]}}, "needs httpRoute.parentRefs"),
    ("drift", {"serviceAccount": {"create": False}}, "name an existing one in serviceAccount.name"),
    ("training", {"jobs": {"serviceAccount": {"create": False}}}, "name an existing one in jobs.serviceAccount.name"),
    ("drift", {"autoscaling": {"enabled": True, "minReplicas": 9}}, "minReplicas is above"),
]


@pytest.mark.parametrize(("chart", "values", "said"), REFUSALS)
def test_values_that_contradict_each_other_are_refused_in_words(
    helm: Helm, chart: str, values: Document, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        helm.render(chart, values)


def test_charts_need_no_cluster_to_be_rendered_and_render_the_same_twice() -> None:
    # What asks the cluster, or chance, or the clock, is a difference for ever where Argo CD renders again and again.
    actions = re.compile(r"\b(lookup|rand\w+|gen\w*(CA|Cert|Key)\w*|uuidv4|now|htpasswd|bcrypt)\b")

    for template in HELM.glob("*/templates/*"):
        for action in re.findall(r"\{\{-?(?!\s*/\*)(.*?)\}\}", template.read_text()):
            assert not actions.search(action), f"{template.name}: {action}"


def test_each_template_of_a_service_is_thin() -> None:
    for chart in SERVICES:
        for template in Path(HELM / chart / "templates").glob("*.yaml"):
            assert len(template.read_text().splitlines()) <= 60, f"{chart}/{template.name}: belongs into the library"
