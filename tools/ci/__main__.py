"""Write deploy/ci/members.yml: the jobs of .gitlab-ci.yml that run for a change of what they are made from.

python -m tools.ci            # write
python -m tools.ci --check    # compare; exit with 1 when the file is stale
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import yaml

from tools.ci.workspace import ROOT, closure, members, paths, tested_with
from tools.images.catalog import IMAGES

FILE = ROOT / "deploy/ci/members.yml"
# A change of these is one of every member.
EVERYWHERE = ("Makefile", "pyproject.toml", "uv.lock")
# What every image is made from beside the members.
IMAGE_SOURCES = (".dockerignore", "Dockerfile", "tools/images/**/*")
HEADER = """\
# Written by `python -m tools.ci` from the members' pyproject.toml: `make fmt` writes it, `make generated` compares it.
# A job runs for a change of its member and of every library that the member is built from (a test's imports count too).
"""


def document() -> dict[str, Any]:
    """Return the jobs: the tests of each member, and for each image its build and its way to the registry."""
    known = members()
    jobs: dict[str, Any] = {}
    for member in known.values():
        sources = paths(closure(tested_with(member, known), known))
        jobs[f"test:{member.name}"] = _job(".test", sources, MEMBER=member.folder)
    for image in IMAGES:
        sources = [*paths(closure([image], known)), *IMAGE_SOURCES]
        jobs[f"image:{image}"] = _job(".image", sources, IMAGE=image)
        jobs[f"push:{image}"] = _job(".push", sources, IMAGE=image)
    return jobs


def _job(template: str, sources: list[str], **variables: str) -> dict[str, Any]:
    # A schedule has no changes to look at: GitLab would take every job in.
    merged = '$CI_PIPELINE_SOURCE != "schedule" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH'
    condition = merged if template == ".push" else "$CI_MERGE_REQUEST_IID"
    changes = sorted({*sources, *EVERYWHERE})
    return {"extends": template, "variables": variables, "rules": [{"if": condition, "changes": changes}]}


def text() -> str:
    """Return what the file is to hold."""
    return HEADER + yaml.dump(document(), sort_keys=False, width=120)


def main(words: list[str] | None = None) -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci", description="Write the path-aware jobs of GitLab.")
    parser.add_argument("--check", action="store_true", help="compare; exit with 1 when the file is stale")
    if not parser.parse_args(words).check:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(text())
    elif not FILE.is_file() or FILE.read_text() != text():
        sys.exit(f"stale: {FILE.relative_to(ROOT)}\nmend with: make fmt")


if __name__ == "__main__":
    main()
