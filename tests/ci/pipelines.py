"""The three pipelines, read: which make targets each calls, and the rest of what their jobs run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
GITLAB = (".gitlab-ci.yml", "deploy/ci/members.yml")
WORKFLOW = ".github/workflows/ci.yml"
JENKINSFILE = "Jenkinsfile"
# Words that belong to the whole of a GitLab pipeline, not to a job.
NO_JOBS = {"default", "include", "stages", "variables", "workflow"}


class _Loader(yaml.SafeLoader):
    """Reads GitLab's !reference as the list that it names."""


_Loader.add_constructor("!reference", lambda loader, node: {"reference": loader.construct_sequence(node)})


def gitlab(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / path).read_text(), _Loader)
    return found


def jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs of GitLab, templates too, as they are written."""
    both = gitlab(GITLAB[0]) | gitlab(GITLAB[1])
    return {name: job for name, job in both.items() if name not in NO_JOBS}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def commands(pipeline: str) -> Iterator[str]:
    """Yield each line of script of a pipeline: ``gitlab``, ``github``, ``jenkins``."""
    if pipeline == "gitlab":
        for job in jobs().values():
            yield from job.get("script", [])
    elif pipeline == "github":
        for job in yaml.safe_load((ROOT / WORKFLOW).read_text())["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)
    else:
        yield from re.findall(r"sh '([^']*)'", (ROOT / JENKINSFILE).read_text())


def called(pipeline: str) -> set[str]:
    """Return the make targets that a pipeline calls."""
    return {words[1] for words in (line.split() for line in commands(pipeline)) if words[0] == "make"}
