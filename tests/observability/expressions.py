"""What the generated files ask Prometheus: every expression of every panel, annotation, variable and rule."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tools.observability.write import DASHBOARDS, RULES

_NAME = re.compile(
    r'(?<![\w$"{.])((?:modelyard|process|namespace|model|slo)[a-z0-9_]*(?::[a-z0-9_]+)*|up|ALERTS)(\{[^}]*\})?(?![\w(])'
)
_STRINGS = re.compile(r'"[^"]*"|`[^`]*`')
_KEYWORDS = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)")


@dataclass(frozen=True)
class Selector:
    """A metric that an expression reads, with the labels that it is narrowed by."""

    metric: str
    matchers: str

    @property
    def text(self) -> str:
        return f"{self.metric}{self.matchers}"

    @property
    def labels(self) -> set[str]:
        return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", _STRINGS.sub('""', self.matchers)))


def selectors(expr: str) -> list[Selector]:
    """Return what an expression reads."""
    bare = _KEYWORDS.sub(" ", expr)
    return [Selector(name, matchers or "") for name, matchers in _NAME.findall(bare)]


@functools.cache
def dashboards() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dashboard, panel), rows left out."""
    for name, document in dashboards().items():
        for panel in document["panels"]:
            if panel["type"] != "row":
                yield name, panel


def panel_expressions() -> dict[str, str]:
    """Return every query of every panel, by where it stands."""
    return {
        f"{name}/{panel['title']}/{target['refId']}": target["expr"]
        for name, panel in panels()
        for target in panel["targets"]
    }


def annotation_expressions() -> dict[str, str]:
    return {
        f"{name}/{one['name']}": one["expr"]
        for name, document in dashboards().items()
        for one in document["annotations"]["list"]
    }


def variable_expressions() -> dict[str, str]:
    """Return what the variables look through: the metric within ``label_values(metric, label)``."""
    return {
        f"{name}/${one['name']}": re.fullmatch(r"label_values\((.*), \w+\)", one["query"]["query"])[1]
        for name, document in dashboards().items()
        for one in document["templating"]["list"]
        if one["type"] == "query"
    }


@functools.cache
def rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def rule_expressions() -> dict[str, str]:
    return {
        f"{rule.get('alert') or rule['record']}/{rule['labels'].get('slo', '')}/{rule['labels'].get('long', '')}"
        if "labels" in rule
        else rule["record"]: rule["expr"]
        for rule in rules()
    }


@functools.cache
def every_expression() -> dict[str, str]:
    return panel_expressions() | annotation_expressions() | variable_expressions() | rule_expressions()
