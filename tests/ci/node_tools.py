"""What the pipelines' tests run on Node, at the versions of package-lock.json, kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FILES = ("package.json", "package-lock.json")
TIMEOUT_S = 240


class NodeToolsError(Exception):
    """They cannot be had here; the message says why."""


def ensure() -> Path:
    """Return the folder node_modules with everything installed.

    Raises:
        NodeToolsError: there is no npm, or it reaches no registry.
    """
    if not (npm := shutil.which("npm")):
        raise NodeToolsError("there is no npm; on Debian: apt-get install npm")
    here = Path(__file__).parent
    key = hashlib.sha256(b"".join((here / name).read_bytes() for name in FILES)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-ci"
    folder = cache / key
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            for name in FILES:
                shutil.copy(here / name, scratch)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                done = subprocess.run(
                    command, cwd=scratch, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired as exc:
                raise NodeToolsError(f"npm did not end within {TIMEOUT_S} s") from exc
            if done.returncode:
                raise NodeToolsError(f"npm could not install: {done.stderr[-500:]}")
            _keep(Path(scratch) / "node_modules", folder)
    return folder / "node_modules"


def _keep(made: Path, folder: Path) -> None:
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    made.rename(partial / "node_modules")
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial)  # somebody else was first, with the same
