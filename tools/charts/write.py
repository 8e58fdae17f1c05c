"""Writes ``values.yaml`` and ``values.schema.json`` of every chart from one declaration.

    python -m tools.charts.write            # write
    python -m tools.charts.write --check    # exit 1, naming the files, when one is not what it would write

The schema of ``settings`` comes from the service's own settings class, without what the chart itself decides, so that
a setting that is renamed in the code is refused at render.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from tools.charts.build import HELM
from tools.charts.catalog import CHARTS, Chart, Observability
from tools.charts.common import Workload

__all__ = ["CHART_OWNED", "rendered", "schema_of"]

_BANNER = "Written by `python -m tools.charts.write`; declare values in tools/charts."
_WIDTH = 112

CHART_OWNED = frozenset(
    {
        "host",
        "port",
        "grpc_port",
        "auth",
        "tokens_file",
        "token_file",
        "data_dir",
        "database_url",
        "migrations",
        "log_level",
    }
    | {"drain_s", "grace_s", "flush_s", "registry_url", "training_url", "drift_url", "inference_url", "mlflow_url"}
    | {"instance", "environment", "otlp_endpoint", "trace_ratio"}
)
"""Settings that a chart derives from other values; setting them twice could only contradict."""

_LIBRARY = {
    "description": "The library chart. It has no values of its own; Helm hands it the globals.",
    "type": "object",
    "additionalProperties": False,
    "properties": {"global": {"type": "object", "description": "The globals, which this chart has checked."}},
}


def schema_of(chart: Chart) -> dict[str, Any]:
    """Return the JSON Schema of a chart's values, without references."""
    raw = chart.values.model_json_schema(by_alias=True)
    schema = _inline(raw, raw.pop("$defs", {}))
    if chart.settings is not None:
        declared = chart.settings.model_json_schema()
        properties = _inline(declared, declared.pop("$defs", {}))["properties"]
        schema["properties"]["settings"] |= {
            "additionalProperties": False,
            "properties": {
                to_camel(name): _setting(field)
                for name, field in properties.items()
                if name not in CHART_OWNED | chart.owned
            },
        }
        schema["properties"]["settings"].pop("x-kubernetes-object")
    if issubclass(chart.values, Workload | Observability):
        schema["properties"]["modelyard-common"] = _LIBRARY
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": _BANNER, **schema}


def _setting(field: dict[str, Any]) -> dict[str, Any]:
    """Return a setting as a value: what is computed where the service runs is not a default here."""
    # Not to set a value is how Helm says None.
    choices = [choice for choice in field.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        field = choices[0] | {key: value for key, value in field.items() if key != "anyOf"}
    kept = {key: value for key, value in field.items() if key != "format"}
    if not isinstance(kept.get("default"), int | float | str):
        kept.pop("default", None)
    return kept


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        # What is said at the place of use is nearer than what the type says.
        here = {key: value for key, value in node.items() if key not in ("$ref", "default")}
        return _inline({**target, **here}, definitions)
    return {
        key: {name: _inline(field, definitions) for name, field in value.items()}
        if key == "properties"
        else _inline(value, definitions)
        for key, value in node.items()
        if key != "title"
    }


def values_of(chart: Chart) -> str:
    """Return a chart's ``values.yaml``: every value with its default and what it means."""
    lines = [f"# {_BANNER}", *_group(chart.values, chart.values.model_construct(), 0)]
    return "\n".join(lines) + "\n"


def _group(model: type[BaseModel], values: BaseModel, depth: int) -> list[str]:
    lines: list[str] = []
    indent = "  " * depth
    for name, field in model.model_fields.items():
        value = getattr(values, name)
        if depth == 0 and lines:
            lines.append("")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(_description(name, field), _WIDTH - len(indent))]
        key = field.alias or name
        if isinstance(value, BaseModel):
            lines += [f"{indent}{key}:", *_group(type(value), value, depth + 1)]
        else:
            lines += textwrap.indent(yaml.safe_dump({key: value}, sort_keys=False), indent).rstrip().splitlines()
    return lines


def _description(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"{name} has no description")
    return field.description.strip()


def rendered() -> dict[Path, str]:
    """Return what every generated file should hold."""
    files = {}
    for name, chart in CHARTS.items():
        files[HELM / name / "values.yaml"] = values_of(chart)
        files[HELM / name / "values.schema.json"] = json.dumps(schema_of(chart), indent=2) + "\n"
    return files


def main() -> None:
    """Write, or check."""
    stale = [path for path, text in rendered().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        if stale:
            sys.exit("run `python -m tools.charts.write`: " + ", ".join(str(path.relative_to(HELM)) for path in stale))
        return
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered()[path])
        print(path.relative_to(HELM))


if __name__ == "__main__":
    main()
