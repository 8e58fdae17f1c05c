"""Build the images and measure what each adds to its base.

An image's identity is its sources: the time stamped into it is that of their last commit, never the clock's.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools.images.catalog import Image
from tools.images.engine import Engine, EngineError

__all__ = ["ROOT", "Built", "build"]

ROOT = Path(__file__).resolve().parents[2]
INPUTS = (
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "uv.lock",
    "libs",
    "services",
    "cli",
    "tools/images/healthcheck.py",
)
FIND = "import importlib.util as u, sys; print(*(name for name in sys.argv[1:] if u.find_spec(name) is None))"


@dataclass(frozen=True)
class Built:
    """An image that was built, and its sizes in bytes."""

    image: Image
    tag: str
    size_bytes: int
    base_bytes: int

    @property
    def added_mb(self) -> float:
        """Megabytes over the base image."""
        return (self.size_bytes - self.base_bytes) / 1e6

    @property
    def fits(self) -> bool:
        """Whether it keeps its budget."""
        return self.added_mb <= self.image.budget_mb


def build(engine: Engine, image: Image, *, base: str, version: str = "dev", extra: Sequence[str] = ()) -> Built:
    """Build one image from this checkout and return it with its sizes.

    Raises:
        EngineError: it was not built, or its own code is not in it although nothing came from the cache.
    """
    # The last change of what goes in: a commit elsewhere gives the same image again.
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct", "--", *INPUTS) or "0"
    arguments = {
        "PACKAGE": image.package,
        "PYTHON_IMAGE": base,
        "SOURCE_DATE_EPOCH": epoch,
        "CREATED": datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "REVISION": _git("rev-parse", "HEAD") or "unknown",
    } | ({"WITH": image.beside} if image.beside else {})
    tag = image.tag(version)
    engine.build(context=ROOT, tag=tag, build_args=arguments, extra=extra)
    if _missing(engine, image, tag):
        # Layers of an engine that was killed, or of a disk that was full, look like any other until they are run.
        engine.build(context=ROOT, tag=tag, build_args=arguments, extra=[*extra, "--no-cache"])
        if missing := _missing(engine, image, tag):
            raise EngineError(f"{tag} was built without {missing}; `docker build` with the same arguments says more")
    size, base_size = (int(str(engine.inspect(name)["Size"])) for name in (tag, base))
    return Built(image, tag, size, base_size)


def _missing(engine: Engine, image: Image, tag: str) -> str:
    """Return those of the image's members that Python does not find in it."""
    options = ("run", "--rm", "--network=none", "--entrypoint=/app/bin/python", tag, "-I", "-c", FIND)
    return engine.run(*options, *image.modules)


def _git(*arguments: str) -> str:
    # A source archive without .git builds as well; it then has no revision to name.
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
