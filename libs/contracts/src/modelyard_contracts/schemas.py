"""Writes the JSON Schemas of all wire shapes, so that a change of the wire is a diff that somebody reviews.

``python -m modelyard_contracts.schemas FOLDER`` writes one file a module; with ``--check`` it compares instead and
exits with 1 when a file is stale. Each file holds the shapes that its module defines, with what they are made of,
under ``$defs``. The writing is deterministic; nothing here decides whether a change is allowed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from modelyard_contracts.managed_model_v1alpha1 import ManagedModel

__all__ = ["MODULES", "documents", "main", "module_schema", "shapes_of", "stale"]

MODULES = (
    "bundle_v1",
    "drift_v1",
    "evaluation_v1",
    "events_v1",
    "explanations_v1",
    "managed_model_status_v1alpha1",
    "managed_model_v1alpha1",
    "open_inference",
    "pages",
    "problem",
    "registry_v1",
    "scoring",
    "training_v1",
)
"""Every module that defines wire shapes."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def shapes_of(module: ModuleType) -> list[type[BaseModel]]:
    """Return the public shapes that a module itself defines, by name."""
    return [
        value
        for name, value in sorted(vars(module).items())
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ == module.__name__
        and value.__name__ == name
        and not name.startswith("_")
    ]


def module_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one module: its shapes under ``$defs``; the manifest's file describes the manifest."""
    module = importlib.import_module(f"modelyard_contracts.{name}")
    _, schema = models_json_schema([(shape, "validation") for shape in shapes_of(module)], by_alias=True)
    title = {"$schema": _DIALECT, "title": f"modelyard {name}"}
    root = {"$ref": "#/$defs/ManagedModel"} if ManagedModel.__module__ == module.__name__ else {}
    return title | root | schema


def documents() -> dict[str, str]:
    """Return file name to text for all modules; equal shapes give equal texts."""
    return {
        f"{name}.json": json.dumps(module_schema(name), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name in MODULES
    }


def stale(folder: Path) -> list[str]:
    """Return the names of files in folder that are missing, different, or of no module; sorted."""
    wanted = documents()
    present = {path.name for path in folder.glob("*.json")}
    differ = {
        name
        for name, text in wanted.items()
        if name not in present or (folder / name).read_text(encoding="utf-8") != text
    }
    return sorted(differ | (present - wanted.keys()))


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the schemas; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard_contracts.schemas", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="compare; exit with 1 when a file is stale")
    asked = parser.parse_args(arguments)
    names = stale(asked.folder)
    if asked.check:
        if names:
            sys.stderr.write(f"stale in {asked.folder}: {', '.join(names)}\nmend with: make fmt\n")
        return 1 if names else 0
    asked.folder.mkdir(parents=True, exist_ok=True)
    wanted = documents()
    for name in names:
        if name in wanted:
            (asked.folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (asked.folder / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
