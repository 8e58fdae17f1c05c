"""The shell commands of docs/operations.md, to be run as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

HANDBOOK = Path(__file__).parents[2] / "docs/operations.md"


def blocks(section: str, language: str = "bash") -> list[str]:
    """Return the code blocks of a section, in their order."""
    [body] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", HANDBOOK.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(rf"```{language}\n(.*?)```", body, flags=re.DOTALL)


def run(script: str, *, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a block as a careful person would: it ends at the first command that fails. Return what it printed."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout
