"""Argo CD's own definitions of its kinds: they come in its Go module, at the versions that are pinned here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.chart.rendering import Document

MODULE = "github.com/argoproj/argo-cd/v3"
# What each is as a whole, as go.sum writes it: the oldest that everything is made for, and the one it was made with.
SUMS = {
    "v3.2.11": "h1:3hkR11XCp/nlyM2cWr3qeUSGuZgi3JkFdMpzgL5qOR8=",
    "v3.5.1": "h1:jtwPLEFX9mNj3jSq88ugFcScGnOZVs2DWaXFuZxrRT8=",
}
KINDS = ("application", "applicationset", "appproject")


class CannotHave(Exception):
    """The module cannot be had here; the message says why."""


def definitions(version: str) -> dict[str, Document]:
    """Return the CustomResourceDefinitions by kind. Raise CannotHave."""
    folder = _module(version) / "manifests/crds"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [yaml.load((folder / f"{name}-crd.yaml").read_text(), loader) for name in KINDS]  # a safe one
    return {one["spec"]["names"]["kind"]: one for one in found}


def _module(version: str) -> Path:
    go = shutil.which("go")
    if go is None:
        raise CannotHave("there is no go command to fetch Argo CD's module with")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{MODULE}@{version}"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode:
        raise CannotHave(f"go cannot fetch {MODULE}@{version}: {(done.stderr or done.stdout)[-500:]}")
    told = json.loads(done.stdout)
    assert told["Sum"] == SUMS[version], f"{MODULE}@{version} is not what was pinned: {told['Sum']}"
    return Path(told["Dir"])


def faults(definition: Document, document: Document) -> Iterator[str]:
    """Yield what the API server would find wrong with an object: wrong values, and fields that it would drop."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for error in jsonschema.Draft7Validator(_closed(schema)).iter_errors(document):
        yield f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"


def _closed(schema: Any) -> Any:
    """Return a structural schema in which a field that is not described is an error, as it is lost otherwise."""
    if not isinstance(schema, dict):
        return schema
    closed = {key: value for key, value in schema.items() if key not in ("description", "format")}
    for key in ("items", "additionalProperties"):
        if key in closed:
            closed[key] = _closed(closed[key])
    if "properties" in closed:
        closed["properties"] = {name: _closed(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed
