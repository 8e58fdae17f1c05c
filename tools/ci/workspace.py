"""Which members of the workspace a member is built from, and which paths a change of it therefore comes from.

Read from the members' own pyproject.toml, extras included, so that a pipeline cannot forget a library that somebody
began to use.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["ROOT", "Member", "closure", "members", "paths", "tested_with"]

ROOT = Path(__file__).resolve().parents[2]
_PREFIX = "modelyard-"


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace.

    Attributes:
        folder: from the top of the repository, as ``libs/stats``.
        uses: names of the members that it declares.
    """

    name: str
    folder: str
    uses: frozenset[str]


def members(root: Path = ROOT) -> dict[str, Member]:
    """Return the members by their short names: ``registry``, not ``modelyard-registry``."""
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    found = (path for pattern in patterns for path in sorted(root.glob(f"{pattern}/pyproject.toml")))
    return {member.name: member for member in (_member(path, root) for path in found)}


def closure(names: Iterable[str], known: dict[str, Member]) -> list[Member]:
    """Return members with all that they are built from, by folder."""
    todo, done = list(names), dict[str, Member]()
    while todo:
        name = todo.pop()
        if name not in done:
            done[name] = known[name]
            todo += known[name].uses
    return sorted(done.values(), key=lambda member: member.folder)


def tested_with(member: Member, known: dict[str, Member], root: Path = ROOT) -> set[str]:
    """Return the members whose code a member's tests import, itself included."""
    found = {member.name}
    for path in (root / member.folder / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {_short(module) for module in modules} & known.keys()
    return found


def _short(module: str) -> str:
    """Return the short name of the member that a module is of."""
    return module.partition(".")[0].removeprefix("modelyard_").replace("_", "-")


def paths(built_from: Iterable[Member]) -> list[str]:
    """Return the globs that a change of any of these members is in."""
    return [f"{member.folder}/**/*" for member in built_from]


def _member(path: Path, root: Path) -> Member:
    project = tomllib.loads(path.read_text())["project"]
    declared = list(project.get("dependencies", []))
    declared += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
    name = project["name"].removeprefix(_PREFIX)
    uses = {Requirement(line).name.removeprefix(_PREFIX) for line in declared if line.startswith(_PREFIX)} - {name}
    return Member(name, str(path.parent.relative_to(root)), frozenset(uses))
