"""An environment for each server, made once by uv and kept under ``.tools/peers``: what it needs, and nothing else.

A peer's comes from its pinned requirements, ours from the lock, as in its image: what development needs besides would
be in its memory too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["OURS", "PEERS", "NotInstalled", "interpreter"]

ROOT = Path(__file__).parents[3]
PEERS = Path(__file__).parents[1] / "peers"
"""The requirements and the servers of the peers."""
OURS = "modelyard"
_OUR_MEMBER = "modelyard-inference"
_INSTALL_S = 600.0


class NotInstalled(RuntimeError):
    """An environment cannot be made here; the message says why."""


def interpreter(name: str) -> Path:
    """Return the interpreter of a server's environment. Raise NotInstalled."""
    pins = ROOT / "uv.lock" if name == OURS else PEERS / f"{name}.txt"
    folder = ROOT / ".tools" / "peers" / name
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return python
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    # Compiled now: the first start is measured, and an installer of an image would have done it too.
    if name == OURS:
        sync = [uv, "sync", "--quiet", "--frozen", "--no-dev", "--compile-bytecode", "--package", _OUR_MEMBER]
        _run(sync, UV_PROJECT_ENVIRONMENT=str(folder))
    else:
        _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "-r", str(pins)])
    mark.write_text(digest)
    return python


def _run(command: Sequence[str], **env: str) -> None:
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                command, check=False, stdout=log, stderr=log, timeout=_INSTALL_S, cwd=ROOT, env=os.environ | env
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotInstalled(f"{command[0]}: {exc}") from exc
        if done.returncode != 0:
            log.seek(0)
            raise NotInstalled(log.read().decode(errors="replace")[-1000:])
