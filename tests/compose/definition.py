"""docker-compose.yml as the compose command reads it: variables replaced, and everything else as it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"

Definition = dict[str, Any]

OURS = ("registry", "training", "inference", "drift")
BESIDE = ("inference-runtime",)
"""Ours too, and reached through a folder: no port, no token, nobody's peer."""
MIGRATED = ("registry", "training", "drift")
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")


def variables() -> dict[str, str]:
    """Return every variable of the file and its default; one with two defaults is an error."""
    found: dict[str, str] = {}
    for name, default in _VARIABLE.findall(FILE.read_text()):
        if found.setdefault(name, default) != default:
            raise AssertionError(f"{name} has two defaults: {found[name]} and {default}")
    return found


def definition(chosen: Mapping[str, str] | None = None) -> Definition:
    """Return the file with its variables as chosen, else their defaults."""
    known = chosen or {}
    text = _VARIABLE.sub(lambda match: known.get(match[1]) or match[2], FILE.read_text())
    loaded: Definition = yaml.safe_load(text)
    return loaded


def services() -> dict[str, Definition]:
    """Return the services by name."""
    return dict(definition()["services"])


def once(service: Definition) -> bool:
    """Return whether a service does one thing and ends."""
    return bool(service["restart"] == "no")


def env_file(path: Path) -> dict[str, str]:
    """Return the variables of an env file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def told(service: Definition, secrets: Path) -> dict[str, str]:
    """Return what a container finds in its environment, with the secrets of a folder."""
    read = [env_file(secrets / Path(name).name) for name in service.get("env_file", [])]
    values: dict[str, str] = {}
    for one in [*read, service.get("environment", {})]:
        values |= {name: str(value) for name, value in one.items()}
    return values
