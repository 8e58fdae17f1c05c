"""A working copy of the default branch, apart from the checkout that a pipeline runs in; commits go straight back."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Clone", "GitError", "clone"]

TIMEOUT_S = 120
AUTHOR = ("-c", "user.name=Modelyard delivery", "-c", "user.email=delivery@modelyard.dev")


class GitError(Exception):
    """git failed; the message is what it said, without the address, which holds a token."""


@dataclass(frozen=True)
class Clone:
    """A fresh clone of one branch."""

    folder: Path
    remote: str

    def commit(self, message: str) -> bool:
        """Commit everything that changed; return whether there was anything."""
        self.run("add", "--all")
        if not self.run("status", "--porcelain"):
            return False
        self.run(*AUTHOR, "commit", "--quiet", "--message", message)
        return True

    def push(self, branch: str, *, force: bool = False) -> None:
        """Push what was committed."""
        self.run("push", "--quiet", *(["--force"] if force else []), "origin", f"HEAD:refs/heads/{branch}")

    def run(self, *arguments: str) -> str:
        """Run git in the clone and return what it printed."""
        return _git(self.remote, "-C", str(self.folder), *arguments)


@contextmanager
def clone(remote: str, branch: str) -> Iterator[Clone]:
    """Yield a clone of a branch as it is now; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="modelyard-delivery-") as scratch:
        folder = Path(scratch) / "clone"
        _git(remote, "clone", "--quiet", "--depth", "1", "--branch", branch, "--", remote, str(folder))
        yield Clone(folder, remote)


def _git(remote: str, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise GitError(done.stderr.replace(remote, "the repository").strip())
    return done.stdout.strip()
