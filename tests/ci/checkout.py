"""A checkout as a GitLab runner has it, with an origin of its own, and gitlab-ci-local to run its pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.ci.pipelines import ROOT

MERGE_REQUEST = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "1"}
SCHEDULE = {"CI_PIPELINE_SOURCE": "schedule"}
TAG = {"CI_COMMIT_TAG": "v1.0.0", "CI_COMMIT_BRANCH": ""}


@dataclass(frozen=True)
class Checkout:
    """A clone of the default branch, with this checkout's files."""

    folder: Path
    node_modules: Path

    @classmethod
    def make(cls, folder: Path, node_modules: Path) -> Checkout:
        """Copy what git has or would take, and commit it on main, there and in an origin."""
        made = cls(folder / "checkout", node_modules)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            source = ROOT / name
            if source.is_file():
                (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, made.folder / name)
        made.git("init", "--quiet", "--initial-branch=main")
        made.commit()
        subprocess.run(["git", "clone", "--quiet", "--bare", str(made.folder), str(folder / "origin")], check=True)
        made.git("remote", "add", "origin", f"file://{folder / 'origin'}")
        made.git("fetch", "--quiet", "origin")
        made.git("remote", "set-head", "origin", "main")
        # From now on nothing is fetched; gitlab-ci-local wants an address that looks like one of GitLab.
        made.git("remote", "set-url", "origin", "git@gitlab.example.com:ml/modelyard.git")
        made._lend_the_environment()
        return made

    def _lend_the_environment(self) -> None:
        """Use this checkout's virtual environment: its .ready is newer than any declaration, whatever a test changes.

        Were it older, make would install the clone's packages, into the environment that is only lent.
        """
        environment = self.folder / ".venv"
        environment.mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (environment / name).symlink_to(ROOT / ".venv" / name)
        ready = environment / ".ready"
        ready.touch()
        tomorrow = time.time() + 86_400
        os.utime(ready, (tomorrow, tomorrow))
        if (ROOT / ".tools").is_dir():
            (self.folder / ".tools").mkdir()
            (self.folder / ".tools/bin").symlink_to(ROOT / ".tools/bin")

    def git(self, *arguments: str) -> str:
        whose = ("-c", "user.name=ci", "-c", "user.email=ci@example.com")
        command = ["git", *whose, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")

    def change(self, *names: str) -> None:
        """Stand on a branch that differs from main in these files only."""
        self.git("checkout", "--quiet", "--force", "-B", "change", "origin/main")
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (self.folder / name).open("a") as file:
                file.write("\n")
        self.commit()

    def on_main(self) -> None:
        self.git("checkout", "--quiet", "--force", "main")

    def ci(
        self, *arguments: str, variables: dict[str, str] | None = None, timeout_s: float = 110
    ) -> subprocess.CompletedProcess[str]:
        """Run gitlab-ci-local."""
        command = [str(self.node_modules / ".bin/gitlab-ci-local"), *arguments]
        command += [word for item in (variables or {}).items() for word in ("--variable", "=".join(item))]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False)

    def jobs(self, variables: dict[str, str]) -> dict[str, dict[str, str]]:
        """Return the jobs that a pipeline would have, by name, with stage and when."""
        done = self.ci("--list-csv", variables=variables)
        assert done.returncode == 0, done.stdout + done.stderr
        head, *lines = [line for line in done.stdout.splitlines() if ";" in line]
        assert head.startswith("name;description;stage;when;allowFailure")
        rows = [dict(zip(head.split(";"), line.split(";"), strict=False)) for line in lines]
        assert rows or "retrain" not in variables, done.stdout
        return {row["name"]: row for row in rows}
