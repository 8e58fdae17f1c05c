"""An environment for each peer, made once by uv from its pinned requirements, and kept under ``.tools/peers``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["PEERS", "NotInstalled", "interpreter"]

ROOT = Path(__file__).parents[3]
PEERS = Path(__file__).parents[1] / "peers"
"""The requirements and the servers of the peers."""
_INSTALL_S = 600.0


class NotInstalled(RuntimeError):
    """A peer's environment cannot be made here; the message says why."""


def interpreter(name: str) -> Path:
    """Return the interpreter of a peer's environment. Raise NotInstalled."""
    requirements = PEERS / f"{name}.txt"
    folder = ROOT / ".tools" / "peers" / name
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    if mark.exists() and mark.read_text() == requirements.read_text():
        return python
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    # Compiled now: the first start is measured, and an installer of an image would have done it too.
    _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "-r", str(requirements))
    mark.write_text(requirements.read_text())
    return python


def _run(*command: str) -> None:
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(command, check=False, stdout=log, stderr=log, timeout=_INSTALL_S)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotInstalled(f"{command[0]}: {exc}") from exc
        if done.returncode != 0:
            log.seek(0)
            raise NotInstalled(log.read().decode(errors="replace")[-1000:])
