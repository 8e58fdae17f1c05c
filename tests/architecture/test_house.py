"""The house keeps its shape: only settings read the environment, and files stay small enough to hold one idea."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERNS = ("libs/*/src/**/*.py", "services/*/src/**/*.py", "cli/src/**/*.py")
SOURCES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 100


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_why_it_exists(source: Path) -> None:
    tree = ast.parse(source.read_text())

    assert not tree.body or ast.get_docstring(tree)


def test_no_module_has_a_name_that_means_nothing() -> None:
    meaningless = {"utils.py", "util.py", "helpers.py", "manager.py", "misc.py", "logging.py"}

    assert [path for path in SOURCES if path.name in meaningless] == []


def test_services_read_the_environment_only_in_settings() -> None:
    offenders = []
    for source in SOURCES:
        if "services" not in source.parts or source.name in {"settings.py", "main.py"}:
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}:
                offenders.append(f"{source.relative_to(ROOT)}:{node.lineno}")

    assert offenders == []


def test_every_http_client_says_whom_it_believes() -> None:
    """Told nothing, httpx reads all certificates anew for each, and hears of none that an installation names."""
    calls = {f"httpx.{call}" for call in ("Client", "AsyncClient", "get", "post", "put", "request", "stream")}
    clients, offenders = 0, []
    for source in SOURCES:
        if "testing" in source.parts:
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in {*calls, "DeadlineTransport"}):
                continue
            clients += 1
            if any(word.arg == "transport" for word in node.keywords):  # it is the transport that believes
                continue
            verified = [ast.unparse(word.value) for word in node.keywords if word.arg == "verify"]
            if not any(value.startswith("trust_for(") for value in verified):
                offenders.append(f"{source.relative_to(ROOT)}:{node.lineno}")

    assert clients >= 6
    assert offenders == []


def test_no_service_or_library_knows_an_example() -> None:
    """Neither a column, nor a row number, nor a digest of the examples' data stands in a service or a library."""
    known = (
        *("vic_price", "vic_demand", "nsw_price", "nsw_demand", "victoria", "electricity", "elec2", "diabetes"),
        *("17424", "17_424", "12_000", "45312", "33312", "ebdfe5480ae25a43", "d5d55f2ebb4c69f0"),
    )
    sources = [source for source in SOURCES if source.relative_to(ROOT).parts[0] in ("libs", "services")]
    assert len(sources) > 100

    found = [
        f"{source.relative_to(ROOT)}: {word}"
        for source in sources
        for word in known
        if word in source.read_text().lower()
    ]

    assert found == []
