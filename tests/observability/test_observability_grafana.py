"""Every dashboard fits the types of the Grafana that compose runs: TypeScript's compiler holds our JSON to them.

Grafana publishes the shapes that its server and its panels read, of each release. A word that no panel knows, a wrong
colour mode, a field in the wrong place is a type error here; Grafana itself would leave it out in silence.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ci import node_tools
from tests.compose.definition import variables
from tests.observability.expressions import dashboards

pytestmark = pytest.mark.timeout(300, func_only=True)
"""Whichever test comes first waits for npm, which may take longer than a test may."""

CONFIGURED = {
    "stat": "Stat",
    "timeseries": "TimeSeries",
    "state-timeline": "StateTimeline",
    "status-history": "StatusHistory",
    "table": "Table",
}
"""Panels to what Grafana's package calls them."""
OF_PROMETHEUS = {"expr", "step", "titleFormat", "textFormat", "useValueForTime"}
"""Of an annotation the data source's part, which Grafana's package leaves to the data source."""
HEAD = """
import type { Dashboard } from '@grafana/schema';
type Json<T> = unknown extends T ? any
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Json<U>>
  : { [K in keyof T]: Json<T[K]> };
"""
"""JSON writes the value of an enumeration where TypeScript wants its name."""
OPTIONS = {"strict": True, "noEmit": True, "module": "nodenext", "moduleResolution": "nodenext", "skipLibCheck": True}


@pytest.fixture(scope="module")
def node_modules() -> Path:
    try:
        return node_tools.ensure()
    except node_tools.NodeToolsError as error:
        pytest.skip(f"the tools on Node cannot be had: {error}")


def program(document: dict[str, Any]) -> str:
    """Return a dashboard as a program that compiles when it fits: as a whole, and each panel's own part."""
    document = copy.deepcopy(document)
    for one in document["annotations"]["list"]:
        for name in OF_PROMETHEUS:
            del one[name]
    lines = [HEAD, f"export const dashboard: Json<Dashboard> = {json.dumps(document)};"]
    for kind, name in CONFIGURED.items():
        path = f"@grafana/schema/dist/esm/raw/composable/{name.lower()}/panelcfg/x/{name}PanelCfg_types.gen"
        lines.append(f"import type * as {name} from '{path}';")
        # A stat has nothing of its own in a field.
        fields = "never" if kind == "stat" else f"Partial<{name}.FieldConfig>"
        for panel in (panel for panel in document["panels"] if panel["type"] == kind):
            place, defaults = panel["id"], panel["fieldConfig"]["defaults"]
            options = json.dumps(panel["options"])
            lines.append(f"export const options{place}: Json<Partial<{name}.Options>> = {options};")
            if "custom" in defaults:
                lines.append(f"export const custom{place}: Json<{fields}> = {json.dumps(defaults['custom'])};")
    return "\n".join(lines)


def compiled(node_modules: Path, folder: Path, documents: Mapping[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return what the compiler complains of, by dashboard: all in one go, which takes as long as one."""
    (folder / "node_modules").symlink_to(node_modules)
    (folder / "package.json").write_text('{"type": "module"}')
    for name, document in documents.items():
        (folder / f"{name}.ts").write_text(program(document))
    files = [f"{name}.ts" for name in documents]
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": files}))
    command = ["node", str(node_modules / "typescript/bin/tsc"), "--pretty", "false", "--project", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return {name: [line for line in lines if line.startswith(f"{name}.ts(")] for name in documents}


def test_the_types_are_those_of_the_grafana_that_compose_runs(node_modules: Path) -> None:
    package = json.loads((node_modules / "@grafana/schema/package.json").read_text())

    assert f":v{package['version']}@" in variables()["GRAFANA_IMAGE"].replace(":", ":v", 1)


def test_every_dashboard_fits_grafanas_types(node_modules: Path, tmp_path: Path) -> None:
    for document in dashboards().values():
        assert {panel["type"] for panel in document["panels"]} <= {*CONFIGURED, "row"}

    assert compiled(node_modules, tmp_path, dashboards()) == {name: [] for name in dashboards()}


def _first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in document["panels"] if panel["type"] == kind)
    return found


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "field": (lambda board: board.update(refreshs="30s"), "refreshs"),
    "word": (lambda board: _first(board, "stat")["options"].update(colorMode="backgrund"), '"backgrund"'),
    "option": (lambda board: _first(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(wide=2), '"wide"'),
    "type": (lambda board: _first(board, "state-timeline")["options"].update(rowHeight="high"), "Type 'string'"),
    "place": (lambda board: _first(board, "table")["gridPos"].pop("w"), "Property 'w' is missing"),
}
"""What somebody gets wrong in a dashboard, and what the compiler says of it."""


def test_a_dashboard_that_grafana_would_read_otherwise_is_found(node_modules: Path, tmp_path: Path) -> None:
    documents = {name: copy.deepcopy(dashboards()["overview"]) for name in SPOILT}
    for name, (spoil, _) in SPOILT.items():
        spoil(documents[name])

    found = compiled(node_modules, tmp_path, documents)

    assert {name: len(lines) for name, lines in found.items()} == dict.fromkeys(SPOILT, 1)
    assert [name for name, (_, said) in SPOILT.items() if said not in found[name][0]] == []
