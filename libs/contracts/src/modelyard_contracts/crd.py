"""Writes the CustomResourceDefinition of ``ManagedModel`` from the manifest's classes, so that the two cannot differ.

``python -m modelyard_contracts.crd FILE`` writes it; with ``--check`` it compares and exits with 1 when it is stale.
The API server takes only *structural* schemas: one type a node, no references, no ``anyOf`` that decides a type, no
``additionalProperties`` beside ``properties``. Rules over several fields become CEL rules; they are written here beside
the name of the class whose validator they repeat, and tests hold them against each other.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import API_VERSION, KIND, ManagedModelSpec
from modelyard_contracts.metrics_v1 import METRICS_BY_TASK
from modelyard_contracts.refs import MODEL_NAME_PATTERN

__all__ = ["NAME", "RULES", "definition", "main", "text"]

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "managedmodels"
NAME = f"{PLURAL}.{GROUP}"

_KEPT = (
    "type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "required",
)  # fmt: skip
_METRICS = "{" + ", ".join(f"'{task}': {list(metrics)}" for task, metrics in METRICS_BY_TASK.items()) + "}"
_FITS = "must fit the task: " + "; ".join(f"{task}: {', '.join(names)}" for task, names in METRICS_BY_TASK.items())

RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "PerformanceTrigger": (("has(self.below) != has(self.above)", "give exactly one of below and above"),),
    "Trigger": (
        (
            "[has(self.cron), has(self.drift), has(self.performance)].filter(given, given).size() == 1",
            "give exactly one of cron, drift and performance",
        ),
    ),
    "FreshRows": (("self.minRows <= self.rows", "minRows must not be larger than rows"),),
    "GateRule": (
        (
            "(has(self.min) || has(self.max)) != has(self.against)",
            "give either min or max, or against: champion with improveBy",
        ),
        ("!has(self.improveBy) || has(self.against)", "improveBy needs against: champion"),
        ("!has(self.on) || !has(self.__true__)", "on is given twice; write it in quotes: 'on'"),
    ),
    "RolloutStep": (("self.shadow != has(self.weight)", "give either shadow: true or weight"),),
    "AbortRule": (
        (
            "[has(self.above), has(self.below), has(self.ratio)].filter(given, given).size() == 1",
            "give exactly one of above, below and ratio",
        ),
    ),
    "Rollout": (("(self.promote == 'pinned') == has(self.version)", "promote: pinned and version go together"),),
    "Replicas": (("self.min <= self.max", "min must not be larger than max"),),
    "Window": (("has(self.rows) != has(self.__for__)", "give exactly one of rows and for"),),
    "Data": (
        ("!(self.target in self.features)", "features: a target, timestamp or key is never a feature"),
        (
            "!has(self.timestamp) || !(self.timestamp in self.features)",
            "features: a target, timestamp or key is never a feature",
        ),
        ("self.keys.all(key, !(key in self.features))", "features: a target, timestamp or key is never a feature"),
        (
            "!has(self.timestamp) || self.timestamp != self.target",
            "target, timestamp and keys must be different columns",
        ),
        (
            "self.keys.all(key, key != self.target && (!has(self.timestamp) || key != self.timestamp))",
            "target, timestamp and keys must be different columns",
        ),
    ),
    "ManagedModelSpec": (
        ("self.train.split.by != 'time' || has(self.data.timestamp)", "train.split.by: time needs data.timestamp"),
        (f"self.gate.all(rule, rule.metric in {_METRICS}[self.task])", f"gate[].metric {_FITS}"),
        (
            "self.train.when.all(one, !has(one.performance) || "
            f"one.performance.metric in {_METRICS}[self.task])",
            f"train.when[].performance.metric {_FITS}",
        ),
        (
            f"!has(self.monitor.performance) || self.monitor.performance.metric in {_METRICS}[self.task]",
            f"monitor.performance.metric {_FITS}",
        ),
        (
            "!(self.data.target in self.serve.redact) && !self.data.keys.exists(key, key in self.serve.redact) && "
            "(!has(self.data.timestamp) || !(self.data.timestamp in self.serve.redact))",
            "serve.redact: a target, timestamp or key is never logged",
        ),
        (
            "self.serve.redact.size() == 0 || "
            "(!self.train.learnFrom.feedback && !self.gate.exists(rule, has(rule.on) || has(rule.__true__)))",
            "serve.redact: rows whose features are not logged can be neither learned from nor judged on; "
            "set learnFrom.feedback to false and no gate's on.fresh",
        ),
    ),
}  # fmt: skip
"""By class of the manifest: CEL rules with what is said when they do not hold. ``self`` has its defaults already."""

_LISTS: dict[tuple[str, str], dict[str, Any]] = {
    ("Data", "keys"): {"x-kubernetes-list-type": "set"},
    ("ManagedModelStatus", "conditions"): {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    },
}

_COLUMNS = (
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", "Served as this policy says"),
    ("Champion", "integer", ".status.champion.number", "The version that answers"),
    ("Candidate", "integer", ".status.candidate.number", "The version that is being rolled out"),
    ("Step", "string", ".status.step", "Where the rollout is"),
    ("Drift", "string", ".status.drift.severity", "The severity of what drift has found"),
    ("Next", "string", ".status.next", "What happens next"),
    ("Age", "date", ".metadata.creationTimestamp", ""),
)


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": NAME,
            "labels": {"app.kubernetes.io/name": "modelyard-crds", "app.kubernetes.io/part-of": "modelyard"},
            # Whoever removes the definition removes every model with it.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mm"],
                "categories": ["modelyard"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def text() -> str:
    """Return the file: equal classes give equal texts."""
    head = "# Made from the manifest's classes by `python -m modelyard_contracts.crd`; `make fmt` writes it again.\n"
    return head + yaml.dump(definition(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice: anchors are hard to read in a review."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never refer to an earlier part."""
        return True


def _column(name: str, kind: str, path: str, description: str) -> dict[str, Any]:
    more = {"description": description} if description else {}
    return {"name": name, "type": kind, "jsonPath": path} | more


def _root() -> dict[str, Any]:
    name = {"type": "string", "maxLength": 63, "pattern": MODEL_NAME_PATTERN}
    return {
        "type": "object",
        "description": "One model's whole life: data, training, gates, rollout, serving and monitoring.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": _structural_class(ManagedModelSpec),
            "status": _structural_class(ManagedModelStatus),
        },
    }


def _structural_class(shape: type[BaseModel]) -> dict[str, Any]:
    schema = shape.model_json_schema(by_alias=True)
    return _Structural(shape.__module__, schema.pop("$defs", {})).node(schema)


class _Structural:
    """Turns pydantic's schema of one module's classes into a structural one."""

    def __init__(self, module: str, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._comments = _comments(module)

    def node(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return one node with everything under it."""
        schema = self._resolved(schema)
        node = {key: schema[key] for key in _KEPT if key in schema}
        if "const" in schema:
            node["enum"] = [schema["const"]]
        if "exclusiveMinimum" in schema:
            node |= {"minimum": schema["exclusiveMinimum"], "exclusiveMinimum": True}
        if "exclusiveMaximum" in schema:
            node |= {"maximum": schema["exclusiveMaximum"], "exclusiveMaximum": True}
        if "description" in schema:
            node["description"] = _line(schema["description"])
        if schema.get("format") == "date-time":
            node["format"] = "date-time"
        if schema.get("default") is not None:
            node["default"] = _without_nulls(schema["default"])
        if "items" in schema:
            node["items"] = self.node(schema["items"])
        if isinstance(schema.get("additionalProperties"), dict):
            node["additionalProperties"] = self.node(schema["additionalProperties"])
        if "anyOf" in schema:
            node |= _of_several_types(schema["anyOf"])
        if "properties" in schema:
            node["properties"] = self._properties(schema)
            rules = RULES.get(schema.get("title", ""), ())
            if rules:
                node["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
        return node

    def _properties(self, schema: dict[str, Any]) -> dict[str, Any]:
        owner = schema.get("title", "")
        nodes = {}
        for name, member in schema["properties"].items():
            comment = self._comments.get((owner, name))
            node = self.node(member) | ({"description": comment} if comment else {})
            nodes[name] = node | _LISTS.get((owner, name), {})
        if owner == "GateRule":
            # kubectl reads the bare key `on` as YAML 1.1 does and sends "true"; the manifest takes it back.
            nodes["true"] = nodes["on"] | {"description": "What a bare `on` becomes on its way; the same."}
        return nodes

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema without its reference and without null as an alternative."""
        options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
        rest = {key: value for key, value in schema.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in schema:
            return self._resolved(self._definitions[schema["$ref"].rpartition("/")[2]] | rest)
        if len(options) == 1:
            # The title of a field is made of its name; that of a class says which rules it has.
            return self._resolved({key: value for key, value in rest.items() if key != "title"} | options[0])
        return schema


def _of_several_types(options: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {option.get("type") for option in options}
    if kinds <= {"string", "integer", "null"}:
        return {"x-kubernetes-int-or-string": True}
    # Any scalar: structural schemas have no word for that; the registry checks it.
    return {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return [_without_nulls(member) for member in value] if isinstance(value, list | tuple) else value


def _line(description: str) -> str:
    return re.sub(r"\s+", " ", description).strip()


@cache
def _comments(module: str) -> dict[tuple[str, str], str]:
    """Return what stands under the fields of a module's classes, by class and the field's name on the wire."""
    found: dict[tuple[str, str], str] = {}
    source = importlib.import_module(module)
    for node in ast.parse(inspect.getsource(source)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = getattr(source, node.name).model_fields if hasattr(getattr(source, node.name), "model_fields") else {}
        for field, below in zip(node.body, node.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                name = field.target.id
                found[node.name, fields[name].alias or name] = _line(str(below.value.value))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the definition; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard_contracts.crd", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="compare; exit with 1 when the file is stale")
    asked = parser.parse_args(arguments)
    fresh = asked.file.exists() and asked.file.read_text(encoding="utf-8") == text()
    if asked.check:
        if not fresh:
            sys.stderr.write(f"stale: {asked.file}\nmend with: make fmt\n")
        return 0 if fresh else 1
    if not fresh:
        asked.file.parent.mkdir(parents=True, exist_ok=True)
        asked.file.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
