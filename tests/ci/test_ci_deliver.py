"""Delivery by git: against a repository that takes pushes, and a server that speaks GitLab's API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.argocd.argo import Checkout as ArgoCheckout
from tests.argocd.test_argocd_rendering import rendered as as_argo_cd_renders
from tests.ci.pipelines import ROOT
from tests.servers import Quiet, listening
from tools.ci import deliver
from tools.ci.deliver import Settings, bump, promote
from tools.ci.git import GitError
from tools.ci.rendered import RenderError, rendered
from tools.kube_tools import KubeTools
from tools.release import main as release

ENVS = "deploy/argocd/envs"
COMMIT = "c0ffee" + "0" * 34
WHOSE = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def pushed(**numbers: int) -> dict[str, str]:
    return {image: f"registry.example.com/ci/{image}@{digest(number)}" for image, number in numbers.items()}


OURS = {"registry": 1, "training": 2, "trainer": 3, "inference": 4, "inference-runtime": 8, "drift": 5, "operator": 6}
ALL = pushed(**OURS) | {"mlflow": f"mlflow@{digest(7)}"}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *WHOSE, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class GitLab:
    """Merge requests as GitLab keeps them."""

    url: str = ""
    token: str = "glpat-secret"
    opened: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: dict[str, Any], token: str | None) -> tuple[int, Any]:
        if token != self.token:
            return 401, {"message": "401 Unauthorized"}
        where, query = urlsplit(path), parse_qs(urlsplit(path).query)
        assert where.path.startswith("/api/v4/projects/42/merge_requests"), path
        if method == "GET":
            wanted = (query["source_branch"][0], query["target_branch"][0], "opened")
            return 200, [
                one for one in self.opened if (one["source_branch"], one["target_branch"], one["state"]) == wanted
            ]
        if method == "POST":
            iid = len(self.opened) + 1
            self.opened.append(
                body | {"iid": iid, "state": "opened", "web_url": f"https://gitlab.example.com/mr/{iid}"}
            )
            return 201, self.opened[-1]
        found = self.opened[int(where.path.rpartition("/")[2]) - 1]
        found.update(body)
        return 200, found


@pytest.fixture
def gitlab() -> Iterator[GitLab]:
    with serving(GitLab()) as served:
        yield served


@contextmanager
def serving(gitlab: GitLab) -> Iterator[GitLab]:
    class Handler(Quiet):
        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, answer = gitlab.answer(
                self.command, self.path, json.loads(raw or b"{}"), self.headers.get("PRIVATE-TOKEN")
            )
            self.reply(status, json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = _any

    with listening(Handler) as url:
        gitlab.url = f"{url}/api/v4"
        yield gitlab


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with what delivery touches, on main."""
    work = tmp_path / "work"
    subprocess.run(["cp", "-r", "--parents", ENVS, str(tmp_path)], cwd=ROOT, check=True)
    work.mkdir()
    (tmp_path / "deploy").rename(work / "deploy")
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "all")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), "origin.git")
    return tmp_path / "origin.git"


@pytest.fixture
def settings(origin: Path, gitlab: GitLab) -> Settings:
    return Settings(f"file://{origin}", "main", gitlab.url, "42", gitlab.token)


def release_of(origin: Path, environment: str, branch: str = "main") -> str:
    return git(origin, "show", f"{branch}:{ENVS}/{environment}/release.yaml")


def test_a_bump_pins_what_was_pushed_on_the_default_branch_and_nothing_else(settings: Settings, origin: Path) -> None:
    assert bump(settings, "dev", pushed(registry=1, trainer=2, cli=9), COMMIT)

    changed = git(origin, "diff", "--name-only", "main~", "main").split()
    text = release_of(origin, "dev")
    assert changed == [f"{ENVS}/dev/release.yaml"]
    assert (digest(1) in text, digest(2) in text, text.count("sha256:" + "0" * 64)) == (True, True, 6)
    message = git(origin, "show", "--no-patch", "--format=%B", "main")
    assert message.splitlines()[0] == "Run c0ffee000000 in dev"
    assert f"registry {digest(1)}" in message
    assert digest(9) not in text + message, "no chart runs the command"


def test_a_bump_of_what_runs_already_makes_no_commit(settings: Settings, origin: Path) -> None:
    bump(settings, "dev", pushed(registry=1), COMMIT)
    before = git(origin, "rev-parse", "main")

    assert not bump(settings, "dev", pushed(registry=1), COMMIT)

    assert git(origin, "rev-parse", "main") == before


def test_a_merge_in_between_is_kept_and_the_bump_comes_after_it(
    settings: Settings, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin, merged = deliver.release.pin, []

    def pin_while_somebody_merges(*arguments: Any) -> None:
        pin(*arguments)
        if not merged:
            other = origin.parent / "other"
            git(origin.parent, "clone", "--quiet", str(origin), str(other))
            (other / "README.md").write_text("merged meanwhile\n")
            git(other, "add", "--all")
            git(other, "commit", "--quiet", "--message", "Merged meanwhile")
            git(other, "push", "--quiet")
            merged.append(True)

    monkeypatch.setattr(deliver.release, "pin", pin_while_somebody_merges)

    assert bump(settings, "dev", pushed(drift=9), COMMIT)

    subjects = git(origin, "log", "--format=%s", "main").splitlines()
    assert subjects[:2] == ["Run c0ffee000000 in dev", "Merged meanwhile"]


def test_a_branch_that_takes_no_push_is_said_without_the_token(settings: Settings, origin: Path) -> None:
    (origin / "hooks/pre-receive").write_text("#!/bin/sh\necho 'protected branch' >&2\nexit 1\n")
    (origin / "hooks/pre-receive").chmod(0o755)

    with pytest.raises(GitError, match="protected branch") as caught:
        bump(settings, "dev", pushed(drift=9), COMMIT)

    assert str(origin) not in str(caught.value)


def test_a_promotion_is_a_merge_request_that_shows_what_it_changes_on_the_cluster(
    settings: Settings, origin: Path, gitlab: GitLab, tools: KubeTools
) -> None:
    bump(settings, "dev", ALL, COMMIT)

    address = promote(settings, "dev", "staging")

    assert address == "https://gitlab.example.com/mr/1"
    [request] = gitlab.opened
    assert (request["source_branch"], request["target_branch"]) == ("promote/staging", "main")
    assert request["title"] == "Promote dev to staging"
    assert digest(4) in release_of(origin, "staging", "promote/staging")
    assert digest(4) not in release_of(origin, "staging")
    diff = request["description"].partition("```diff\n")[2].partition("```")[0].splitlines()
    added = [line for line in diff if line.startswith("+") and not line.startswith("+++")]
    assert len(added) >= len(ALL)
    assert all("@sha256:" in line for line in added), "a promotion changes images and nothing else"
    assert {number for number in range(1, 8) if any(digest(number) in line for line in added)} == set(range(1, 8))


def test_a_second_promotion_brings_the_open_merge_request_up_to_date(
    settings: Settings, origin: Path, gitlab: GitLab, tools: KubeTools
) -> None:
    bump(settings, "dev", ALL, COMMIT)
    promote(settings, "dev", "staging")
    bump(settings, "dev", pushed(drift=77), COMMIT)

    address = promote(settings, "dev", "staging")

    assert (address, len(gitlab.opened)) == ("https://gitlab.example.com/mr/1", 1)
    assert digest(77) in gitlab.opened[0]["description"]
    assert digest(77) in release_of(origin, "staging", "promote/staging")


def test_what_runs_there_already_needs_no_merge_request(
    settings: Settings, origin: Path, gitlab: GitLab, tools: KubeTools
) -> None:
    bump(settings, "dev", ALL, COMMIT)
    bump(settings, "staging", ALL, COMMIT)

    assert promote(settings, "dev", "staging") == ""
    assert gitlab.opened == []


def test_a_promotion_that_gitlab_refuses_is_said(settings: Settings, gitlab: GitLab, tools: KubeTools) -> None:
    bump(settings, "dev", ALL, COMMIT)
    gitlab.token = "another"

    with pytest.raises(GitError, match="GitLab answered 401 to GET"):
        promote(settings, "dev", "staging")


def test_a_difference_that_nobody_would_read_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "MOST_CHARACTERS", 200)

    text = deliver._as_diff({"drift": ""}, {"drift": "\n".join(f"line {number}" for number in range(100))})

    assert "line 1\n" in text and "line 99" not in text
    assert "This is not all" in text


def test_settings_come_from_gitlab_and_what_is_missing_is_named() -> None:
    environment = {
        "CI_SERVER_URL": "https://gitlab.example.com",
        "CI_PROJECT_PATH": "ml/modelyard",
        "CI_DEFAULT_BRANCH": "main",
        "CI_API_V4_URL": "https://gitlab.example.com/api/v4",
        "CI_PROJECT_ID": "42",
        "DELIVERY_TOKEN": "a/b",
    }

    assert Settings.of(environment).remote == "https://delivery:a%2Fb@gitlab.example.com/ml/modelyard.git"
    with pytest.raises(GitError, match="CI_PROJECT_ID, DELIVERY_TOKEN not set"):
        Settings.of(environment | {"CI_PROJECT_ID": "", "DELIVERY_TOKEN": ""})


@pytest.mark.parametrize("environment", ["production"])
def test_an_environment_is_rendered_as_argo_cd_renders_it(tools: KubeTools, tmp_path: Path, environment: str) -> None:
    argo = ArgoCheckout.make(tmp_path, tools.helm4)
    release(
        ["pin", "dev", *(f"{image}={reference.partition('@')[2]}" for image, reference in ALL.items())], tmp_path / ENVS
    )

    found = rendered(environment, tmp_path / ENVS)

    documents = [one for text in found.values() for one in yaml.safe_load_all(text) if one]
    expected = as_argo_cd_renders(argo, environment)
    assert len(documents) == len(expected) > 30
    assert sorted(map(json.dumps, documents)) == sorted(map(json.dumps, expected))


def test_an_environment_that_is_not_there_is_said() -> None:
    with pytest.raises(RenderError, match="there is no environment 'nothere'"):
        rendered("nothere")
