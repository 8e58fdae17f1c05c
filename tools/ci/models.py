"""Tell what a merge would do to the models of an environment, by its registry; nothing is changed.

    python -m tools.ci.models dev --since origin/main

Manifests that are there are planned by `modelyard apply --dry-run`. Those that are there no longer are told by
`modelyard delete --dry-run`: Argo CD prunes them, which deletes their models. Which registry, and by which token, is
told by the variables of `modelyard`. Everything said is kept in build/models-plan.txt too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from tools.ci.workspace import ROOT

__all__ = ["main"]

TIMEOUT_S = 300
NOT_FOUND = 3  # modelyard's exit code: such a model was never applied, or is gone already


def main(words: list[str] | None = None) -> None:
    """Plan, and leave with the exit code of the first command that failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci.models", description="What a merge would do to models.")
    parser.add_argument("environment")
    parser.add_argument("--since", default="HEAD", help="the commit to compare with; default: %(default)s")
    told = parser.parse_args(words)
    folder = Path("deploy/argocd/envs") / told.environment / "models"
    if not (ROOT / folder.parent).is_dir():
        sys.exit(f"models: there is no environment {told.environment!r}")
    said, code = _plan(told.environment, folder, told.since)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/models-plan.txt").write_text(said)
    print(said, end="")
    sys.exit(code)


def _plan(environment: str, folder: Path, since: str) -> tuple[str, int]:
    now = _names(path.read_text() for path in sorted((ROOT / folder).glob("*.yaml")))
    gone = sorted(_names(_texts_in(since, folder)) - now)
    if not now and not gone:
        return f"{environment} has no models in git\n", 0
    commands = [["apply", "--dry-run", "--file", str(folder)]] if now else []
    commands += [["delete", name, "--dry-run"] for name in gone]
    said = ""
    for command in commands:
        answer, code = _modelyard(*command)
        if code == NOT_FOUND and command[0] == "delete":
            answer = f"model/{command[1]} is no longer in git, and {environment} has it not\n"
        elif code:
            return said + answer, code
        said += answer
    return said, 0


def _modelyard(*words: str) -> tuple[str, int]:
    command = [sys.executable, "-m", "modelyard_cli.main", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stdout + done.stderr, done.returncode


def _texts_in(commit: str, folder: Path) -> list[str]:
    """Return the manifests of a folder as a commit had them."""
    listed = _git("ls-tree", "-r", "--name-only", commit, "--", f"{folder}/").splitlines()
    return [_git("show", f"{commit}:{name}") for name in listed if name.endswith(".yaml")]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"models: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _names(texts: Iterable[str]) -> set[str]:
    """Return the names of models; what is no manifest is the validation's to refuse."""
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    return {str(one.get("metadata", {}).get("name")) for one in documents if isinstance(one, dict)}


if __name__ == "__main__":
    main()
