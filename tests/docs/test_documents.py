"""Documents do not lie: links resolve, commands exist, the lock names only the public index."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)


def code_blocks(text: str) -> list[str]:
    return re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())

    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]

    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_named_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = document.read_text()
    named = set(re.findall(r"`make ([a-z-]+)`", text))
    for block in code_blocks(text):
        named |= set(re.findall(r"^make ([a-z-]+)", block, flags=re.MULTILINE))

    assert named - targets == set()


def test_modelyard_commands_named_in_documents_exist() -> None:
    named: set[str] = set()
    for document in DOCUMENTS:
        for block in code_blocks(document.read_text()):
            named |= set(re.findall(r"^(?:\.venv/bin/)?modelyard ([a-z]+)", block, flags=re.MULTILINE))
    program = ROOT / ".venv/bin/modelyard"

    unknown = [
        name
        for name in sorted(named)
        if subprocess.run([program, name, "--help"], check=False, capture_output=True, timeout=60).returncode != 0
    ]

    assert named, "the documents name no command at all"
    assert unknown == []


def test_the_lock_names_only_the_public_index() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))

    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
