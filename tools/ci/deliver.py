"""Decide what runs, by git: dev follows the default branch; staging and production by a merge request.

    python -m tools.ci.deliver bump dev                       # pins build/digests/*, pushes to the default branch
    python -m tools.ci.deliver promote dev staging            # a branch, and a merge request with the rendered diff

Settings come from GitLab's variables and DELIVERY_TOKEN, a project access token that may write the repository and open
merge requests. Argo CD does the rest; nothing here talks to a cluster.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tools import kube_tools, release
from tools.charts.build import BuildError
from tools.ci.git import Clone, GitError, clone
from tools.ci.rendered import RenderError, rendered
from tools.ci.supply import BUILD, REFERENCE, SupplyError, digests
from tools.images.catalog import IMAGES

__all__ = ["Settings", "bump", "main", "promote"]

TIMEOUT_S = 30.0
PUSH_TRIES = 3
# GitLab takes a million characters; nobody reads more than this in a browser.
MOST_CHARACTERS = 60_000


@dataclass(frozen=True)
class Settings:
    """Where the repository and its GitLab are."""

    remote: str
    branch: str
    api: str
    project: str
    token: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read them from GitLab's variables. Raise GitError naming what is missing."""
        needed = ("CI_SERVER_URL", "CI_PROJECT_PATH", "CI_DEFAULT_BRANCH", "CI_API_V4_URL", "CI_PROJECT_ID")
        if missing := [name for name in (*needed, "DELIVERY_TOKEN") if not environment.get(name)]:
            raise GitError(f"{', '.join(missing)} not set: this runs in a GitLab job with the token of the delivery")
        server, path, branch, api, project = (environment[name] for name in needed)
        token = environment["DELIVERY_TOKEN"]
        scheme, _, host = server.partition("://")
        remote = f"{scheme}://delivery:{quote(token, safe='')}@{host}/{path}.git"
        return cls(environment.get("DELIVERY_REMOTE") or remote, branch, api, project, token)


def bump(settings: Settings, environment: str, pushed: Mapping[str, str], commit: str) -> bool:
    """Pin what was pushed in an environment, on the default branch; return whether that changed anything.

    Somebody may merge at the same moment: what was refused is done anew on what is there then.
    """
    pushed = {image: told for image, told in pushed.items() if image not in IMAGES or IMAGES[image].deployed}
    wanted = {image: reference.partition("@")[2] for image, reference in pushed.items()}
    for last in (*[False] * (PUSH_TRIES - 1), True):
        with clone(settings.remote, settings.branch) as copy:
            release.pin(_environments(copy), environment, wanted)
            if not copy.commit(f"Run {commit[:12]} in {environment}\n\n{_table(pushed, '{image} {digest}')}"):
                return False
            try:
                copy.push(settings.branch)
            except GitError:
                if last:
                    raise
                continue
            return True
    return False


def promote(settings: Settings, source: str, target: str) -> str:
    """Ask for the digests of one environment to run in another; return the address of the merge request, or ``""``."""
    with clone(settings.remote, settings.branch) as copy:
        environments = _environments(copy)
        before = rendered(target, environments)
        release.promote(environments, source, target)
        after = rendered(target, environments)
        if not copy.commit(f"Promote {source} to {target}"):
            return ""
        branch = f"promote/{target}"
        copy.push(branch, force=True)
    description = f"What {source} runs, by the same digests.\n\n{_as_diff(before, after)}"
    return _merge_request(settings, branch, f"Promote {source} to {target}", description)


def _environments(copy: Clone) -> Path:
    return copy.folder / "deploy/argocd/envs"


def _table(pushed: Mapping[str, str], line: str) -> str:
    parts = {image: REFERENCE.fullmatch(reference) for image, reference in pushed.items()}
    return "\n".join(line.format(image=image, digest=found["digest"]) for image, found in parts.items() if found)


def _as_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    lines = [
        line
        for service in sorted({*before, *after})
        for line in difflib.unified_diff(
            before.get(service, "").splitlines(),
            after.get(service, "").splitlines(),
            service,
            service,
            lineterm="",
            n=2,
        )
    ]
    text = "\n".join(lines)
    if len(text) <= MOST_CHARACTERS:
        return f"```diff\n{text}\n```\n"
    cut = text[:MOST_CHARACTERS].rpartition("\n")[0]
    return f"```diff\n{cut}\n```\n\nThis is not all: `python -m tools.ci.rendered` on both sides shows the rest.\n"


def _merge_request(settings: Settings, branch: str, title: str, description: str) -> str:
    """Open a merge request, or bring the one that is open up to date."""
    path = f"/projects/{quote(settings.project, safe='')}/merge_requests"
    body = {"title": title, "description": description, "remove_source_branch": True}
    whose = {"source_branch": branch, "target_branch": settings.branch}
    headers = {"PRIVATE-TOKEN": settings.token}
    with httpx.Client(base_url=settings.api, headers=headers, timeout=TIMEOUT_S) as http:
        opened = _answer(http.get(path, params={**whose, "state": "opened"}))
        if opened:
            return str(_answer(http.put(f"{path}/{opened[0]['iid']}", json=body))["web_url"])
        return str(_answer(http.post(path, json=body | whose))["web_url"])


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise GitError(f"GitLab answered {response.status_code} to {response.request.method}: {response.text[:500]}")
    return response.json()


def main(words: list[str] | None = None) -> None:
    """Bump or promote for the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci.deliver", description="Decide what runs, by git.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    bumping = verbs.add_parser("bump", help="pin what this pipeline pushed")
    bumping.add_argument("environment")
    promoting = verbs.add_parser("promote", help="ask for a promotion by a merge request")
    promoting.add_argument("source")
    promoting.add_argument("target")
    told = parser.parse_args(words)
    try:
        settings = Settings.of(os.environ)
        if told.verb == "bump":
            pushed = digests(BUILD)
            changed = bool(pushed) and bump(settings, told.environment, pushed, os.environ.get("CI_COMMIT_SHA", ""))
            print(f"{told.environment}: {', '.join(pushed) if changed else 'nothing new'}")
        else:
            print(promote(settings, told.source, told.target) or f"{told.target} runs what {told.source} runs")
    except (GitError, SupplyError, release.ReleaseError, RenderError, BuildError, kube_tools.KubeToolsError) as error:
        sys.exit(f"{told.verb}: {error}")
    except (httpx.TransportError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{told.verb}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
